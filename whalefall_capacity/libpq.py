"""What libpq, the library below every PostgreSQL connection, would do on its own; here it does what it is told."""

from __future__ import annotations

import os


def forget_environment() -> None:
    """Remove libpq's variables from the environment of this process, for good.

    libpq reads PGHOSTADDR, PGOPTIONS, PGSERVICE and a few dozen others at every connect and lets them decide
    where a connection goes and how. All of its variables begin with PG, and so will those of its next version.
    They are removed rather than hidden for the length of a connect, because the environment belongs to all
    threads. https://www.postgresql.org/docs/current/libpq-envars.html
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        os.environ.pop(name, None)
