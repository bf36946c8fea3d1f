"""`whalefall-capacity credential`: passwords go in by standard input, and never come out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet, InvalidToken

from whalefall_capacity.settings import PREFIX
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.processes import start, wait_for
from whalefall_capacity_tests.registry import entry, register
from whalefall_capacity_tests.servers import MariadbFleetServer
from whalefall_capacity_tests.slow_fleet import gate
from whalefall_capacity_tests.store.records import rows

KEY, NEW_KEY = (Fernet.generate_key().decode() for _ in range(2))
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


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_of_settings_that_others_can_open_is_told_with_the_command_that_closes_it(
    whalefall: CommandLine, mode: int
) -> None:
    env = whalefall.write(".env", "WHALEFALL_TIMEZONE=UTC\n")
    env.chmod(mode)
    done = whalefall("credential", "new-key")
    assert (done.status, done.err) == (
        0,
        "warning: .env may hold secrets and is open to other accounts; close it: chmod 600 .env\n",
    )
    env.chmod(0o600)
    assert whalefall("credential", "new-key").err == ""


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
    assert done.err == "error: no password on standard input; credential vault was left as it is\n"
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


def test_a_rotated_password_is_encrypted_with_the_new_key_alone(
    whalefall: CommandLine, mariadb: MariadbFleetServer, keeper: str
) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = KEY
    whalefall(*SET, stdin=keeper)
    whalefall("credential", "set", "other", "--username", "someone", stdin="geheim\n")
    register(whalefall.store, entry("maria", mariadb.target(), credential={"stored": "vault"}))
    os.environ[f"{PREFIX}SECRET_KEY"] = f"{NEW_KEY},{KEY}"
    assert whalefall("fleet", "check").status == 0
    done = whalefall("credential", "rotate-key")
    assert (done.status, done.err) == (0, "")
    assert done.out == "2 stored credentials are encrypted with the first key of WHALEFALL_SECRET_KEY\n"
    stored = dict(rows(whalefall.store, "SELECT name, password FROM credentials"))
    assert Fernet(NEW_KEY).decrypt(stored["vault"]) == keeper.encode()
    assert Fernet(NEW_KEY).decrypt(stored["other"]) == b"geheim"
    with pytest.raises(InvalidToken):
        Fernet(KEY).decrypt(stored["vault"])
    assert whalefall("fleet", "check").status == 0
    os.environ[f"{PREFIX}SECRET_KEY"] = NEW_KEY
    assert whalefall("fleet", "check").status == 0


def test_one_password_under_another_key_leaves_all_of_them_as_they_were(whalefall: CommandLine) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = KEY
    whalefall(*SET, stdin="geheim\n")
    os.environ[f"{PREFIX}SECRET_KEY"] = Fernet.generate_key().decode()
    whalefall("credential", "set", "lost", "--username", "someone", stdin="geheim\n")
    before = rows(whalefall.store, "SELECT xmin, password FROM credentials ORDER BY id")
    os.environ[f"{PREFIX}SECRET_KEY"] = f"{NEW_KEY},{KEY}"
    done = whalefall("credential", "rotate-key")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: stored credential lost cannot be decrypted: ")
    assert rows(whalefall.store, "SELECT xmin, password FROM credentials ORDER BY id") == before


def test_references_are_left_as_they_are(whalefall: CommandLine, mariadb: MariadbFleetServer) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = KEY
    register(whalefall.store, entry("maria", mariadb.target()))
    before = rows(whalefall.store, "SELECT * FROM credentials")
    assert whalefall("credential", "rotate-key").out.startswith("0 stored credentials ")
    assert rows(whalefall.store, "SELECT * FROM credentials") == before


def test_there_is_nothing_to_rotate_to_without_a_key(whalefall: CommandLine) -> None:
    done = whalefall("credential", "rotate-key")
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: WHALEFALL_SECRET_KEY is not set: set it to the new key and the old one, NEW,OLD\n"


@pytest.mark.parametrize(
    "value",
    [f"{NEW_KEY},", f"{NEW_KEY},almost-a-key", ",", f"{NEW_KEY} {KEY}"],
    ids=["nothing after the comma", "no key after it", "a comma alone", "a space between them"],
)
def test_each_of_several_keys_has_to_be_one(whalefall: CommandLine, value: str) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = value
    done = whalefall("credential", "rotate-key")
    assert done.status == 1
    assert done.err.startswith(
        "error: WHALEFALL_SECRET_KEY: (secret): must be a Fernet key: 32 bytes in URL-safe base64"
    )
    assert NEW_KEY not in done.err
    assert "almost" not in done.err


@pytest.fixture
def kept(mariadb: MariadbFleetServer) -> Iterator[str]:
    """A database of the MariaDB server, and the only one that is not left out."""
    with mariadb.connect() as cursor:
        cursor.execute("CREATE DATABASE kept")
        os.environ[f"{PREFIX}MARIADB_EXCLUDE_REGEX"] = "(?!kept$).*"
        yield "kept"
        cursor.execute("DROP DATABASE kept")


@pytest.mark.slow
@pytest.mark.usefixtures("kept")
def test_a_key_that_is_rotated_while_a_collection_runs_costs_neither(
    whalefall: CommandLine, mariadb: MariadbFleetServer, keeper: str, tmp_path: Path
) -> None:
    os.environ[f"{PREFIX}SECRET_KEY"] = KEY
    whalefall(*SET, stdin=keeper)
    with gate(mariadb.server.socket) as held:
        behind = {"host": "127.0.0.1", "port": held.port, "tls": {"mode": "disable"}}
        register(whalefall.store, entry("maria", mariadb.target(), credential={"stored": "vault"}, **behind))
        variables = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
        # The first visit is held until the second collection has come, which takes long on a busy machine.
        variables[f"{PREFIX}CONNECT_TIMEOUT_SECONDS"] = "300"
        both = variables | {f"{PREFIX}SECRET_KEY": f"{NEW_KEY},{KEY}"}
        # One was started before the new key was there, and holds its visit; the other with both.
        collections = [start(["collect"], variables, tmp_path / "before")]
        wait_for(lambda: held.waiting, "visit that is held")
        collections.append(start(["collect"], both, tmp_path / "with"))
        running = "SELECT count(*) FROM task_runs WHERE status = 'running'"
        wait_for(lambda: rows(whalefall.store, running) == [(2,)], "two collections")
        os.environ[f"{PREFIX}SECRET_KEY"] = both[f"{PREFIX}SECRET_KEY"]
        rotated = whalefall("credential", "rotate-key")
        assert (rotated.status, rotated.err) == (0, "")
        held.open()
        assert [process.wait(180) for process in collections] == [0, 0], (tmp_path / "before").read_text()
    assert rows(whalefall.store, "SELECT database_name FROM database_size_stats") == [("kept",)]
    assert rows(whalefall.store, "SELECT status FROM task_runs") == [("completed",), ("completed",)]
    ((password,),) = rows(whalefall.store, "SELECT password FROM credentials")
    assert Fernet(NEW_KEY).decrypt(password) == keeper.encode()
