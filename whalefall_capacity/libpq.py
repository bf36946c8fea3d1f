"""Libpq, the library below every PostgreSQL connection, kept from reading settings of its own in the environment."""

from __future__ import annotations

import os
import re

# As libpq names all of its variables, those of its next version included; never one such as PG_SHOP_PASSWORD.
VARIABLE = re.compile(r"PG[A-Z]+")
# It leads nowhere, the fleet file may name it under `password_env`, and a visit always says a password itself.
HARMLESS = "PGPASSWORD"
# By the keyword that they stand for, if not by its letters.
IRREGULAR_VARIABLES = {"dbname": "PGDATABASE", "application_name": "PGAPPNAME", "connect_timeout": "PGCONNECT_TIMEOUT"}


def variable_of(keyword: str) -> str:
    """Return the variable that libpq reads for a keyword such as `sslmode`; the few without have one that is ignored.

    https://www.postgresql.org/docs/current/libpq-envars.html
    """
    return IRREGULAR_VARIABLES.get(keyword) or f"PG{keyword.replace('_', '').upper()}"


def forget_environment() -> None:
    """Remove libpq's variables from the environment of this process, for good.

    libpq reads PGHOSTADDR, PGOPTIONS, PGSERVICE and a few dozen others at every connect and lets them decide
    where a connection goes and how. They are removed rather than hidden for the length of a connect, because the
    environment belongs to all threads. https://www.postgresql.org/docs/current/libpq-envars.html
    """
    for name in [name for name in os.environ if is_forgotten(name)]:
        os.environ.pop(name, None)


def is_forgotten(variable: str) -> bool:
    """Tell whether `forget_environment` removes a variable of this name."""
    return VARIABLE.fullmatch(variable) is not None and variable != HARMLESS
