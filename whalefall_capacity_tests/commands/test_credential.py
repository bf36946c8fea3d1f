"""`whalefall-capacity credential`: passwords go in by standard input, and never come out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from whalefall_capacity.settings import PREFIX
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.registry import entry, register
from whalefall_capacity_tests.servers import MariadbFleetServer
from whalefall_capacity_tests.store.records import rows

KEY = Fernet.generate_key().decode()
SET = ("credential", "set", "vault", "--username", "keeper")


@pytest.fixture
def keeper(mariadb: MariadbFleetServer) -> Iterator[str]:
    """A user of the MariaDB server with a password."""
    with mariadb.connect() as cursor:
        cursor.execute("CREATE USER keeper@localhost IDENTIFIED BY 'geheim \\\\ \"x'")
        cursor.execute("GRANT SELECT, PROCESS, BINLOG MONITOR ON *.* TO keeper@localhost")
        yield 'geheim \\ "x'
        cursor.execute("DROP USER keeper@localhost")


def test_a_new_key_is_printed_alone_and_is_another_one_each_time(whalefall: CommandLine) -> None:
    keys = {whalefall("credential", "new-key").out for _ in range(3)}
    assert len(keys) == 3
    for key in keys:
        assert Fernet(key.strip())
        assert key == key.strip() + "\n"


def test_a_stored_password_opens_its_server(whalefall: CommandLine, mariadb: MariadbFleetServer, keeper: str) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = KEY
    done = whalefall(*SET, "--description", "of the shop", stdin=f"{keeper}\n")
    assert (done.status, done.out, done.err) == (0, "stored credential vault\n", "")
    register(whalefall.store, entry("maria", mariadb.target(), credential={"stored": "vault"}))
    assert whalefall("fleet", "check").status == 0


def test_a_password_can_be_replaced(whalefall: CommandLine, mariadb: MariadbFleetServer, keeper: str) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = KEY
    whalefall(*SET, stdin="wrong\n")
    register(whalefall.store, entry("maria", mariadb.target(), credential={"stored": "vault"}))
    refused = whalefall("fleet", "check")
    assert refused.status == 1
    assert "Access denied" in refused.out
    assert "wrong" not in refused.out
    whalefall(*SET, stdin=keeper)
    assert whalefall("fleet", "check").status == 0


def test_the_store_holds_no_password_in_clear(whalefall: CommandLine) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = KEY
    done = whalefall(*SET, stdin="geheim\n")
    assert "geheim" not in done.out + done.err
    ((password,),) = rows(whalefall.store, "SELECT password FROM credentials")
    assert Fernet(KEY).decrypt(password) == b"geheim"


@pytest.mark.parametrize("stdin", ["", "\n"])
def test_no_password_is_an_error_and_leaves_the_old_one(whalefall: CommandLine, stdin: str) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = KEY
    whalefall(*SET, stdin="geheim\n")
    before = rows(whalefall.store, "SELECT xmin, password FROM credentials")
    done = whalefall(*SET, stdin=stdin)
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: no password came on standard input; credential vault was left as it is\n"
    assert rows(whalefall.store, "SELECT xmin, password FROM credentials") == before


def test_a_password_is_not_stored_without_a_key(whalefall: CommandLine) -> None:
    done = whalefall(*SET, stdin="geheim\n")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: stored credentials need WHALEFALL_SECRET_KEY; ")
    assert rows(whalefall.store, "SELECT count(*) FROM credentials") == [(0,)]


def test_a_key_that_is_none_is_an_error_that_does_not_show_it(whalefall: CommandLine) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = "almost-a-key"
    done = whalefall(*SET, stdin="geheim\n")
    assert done.status == 1
    assert "WHALEFALL_SECRET_KEY" in done.err
    assert "almost-a-key" not in done.err


def test_a_username_is_needed(whalefall: CommandLine) -> None:
    assert whalefall("credential", "set", "vault", stdin="geheim\n").status == 2
