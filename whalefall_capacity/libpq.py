"""Libpq, the library below every PostgreSQL connection, kept from reading settings of its own in the environment."""

from __future__ import annotations

import os
import re

# As libpq names all of its variables, those of its next version included; never one such as PG_SHOP_PASSWORD.
VARIABLE = re.compile(r"PG[A-Z]+")
# It leads nowhere, the fleet file may name it under `password_env`, and a visit always says a password itself.
HARMLESS = "PGPASSWORD"


def forget_environment() -> None:
    """Remove libpq's variables from the environment of this process, for good.

    libpq reads PGHOSTADDR, PGOPTIONS, PGSERVICE and a few dozen others at every connect and lets them decide
    where a connection goes and how. They are removed rather than hidden for the length of a connect, because the
    environment belongs to all threads. https://www.postgresql.org/docs/current/libpq-envars.html
    """
    for name in [name for name in os.environ if VARIABLE.fullmatch(name) and name != HARMLESS]:
        os.environ.pop(name, None)
