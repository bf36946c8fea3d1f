"""A database that is not WhaleFall's, an address that leads nowhere, and keys and names that cannot be kept.

Each is a clear line, and nothing is written.
"""

from __future__ import annotations

import psycopg2
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from whalefall_capacity.errors import CredentialError, MigrationError
from whalefall_capacity.store.fleet_credentials import set_credential
from whalefall_capacity.store.moving_in.source import open_source
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity_tests.store.moving_in.conftest import DAYS, Migrate
from whalefall_capacity_tests.store.records import row_versions, rows
from whalefall_capacity_tests.whalefall_source import WhaleFall, make_whalefall


def refusal(url: str) -> str:
    """Return the error of opening what is at *url*."""
    with pytest.raises(MigrationError) as refused, open_source(SecretStr(url)):
        pass
    return str(refused.value)


@pytest.mark.parametrize("url", ["nonsense", "mysql://user:top-secret@db.example/whalefall", "", "postgresql"])
def test_what_is_no_url_of_postgresql_is_said_without_quoting_it(url: str) -> None:
    assert refusal(url) == (
        "the URL of WhaleFall's database must be like postgresql://user@host:5432/whalefall; nothing was written"
    )


def test_an_address_at_which_nobody_listens_is_said_without_the_password() -> None:
    error = refusal("postgresql://monitor:top-secret@127.0.0.1:1/whalefall")
    assert error.startswith("WhaleFall's database cannot be reached: connection to server at")
    assert error.endswith("; nothing was written")
    assert "top-secret" not in error
    assert "\n" not in error


def test_a_schema_that_is_not_whalefalls_is_refused_by_what_it_lacks(empty_database: str) -> None:
    assert refusal(empty_database) == (
        "the database is not WhaleFall's: table credentials, table instances, table instance_databases, table "
        "database_size_stats, table instance_size_stats missing; give the URL of the database that WhaleFall writes "
        "to, with the schema in its search_path; nothing was written"
    )


def test_the_store_itself_is_no_source(store: Engine) -> None:
    error = refusal(store.url.render_as_string(hide_password=False))
    assert "column credentials.credential_type" in error
    assert "column database_size_stats.size_mb" in error


def test_task_runs_that_are_asked_for_must_be_there(whale: WhaleFall, migrate: Migrate) -> None:
    whale.execute("DROP TABLE task_run_items")
    with pytest.raises(MigrationError, match="table task_run_items missing"):
        migrate(task_runs=True)


def test_the_snapshot_cannot_be_written_to_and_what_is_committed_meanwhile_is_not_in_it(whale: WhaleFall) -> None:
    with open_source(SecretStr(whale.url)) as source:
        assert source.instances() == []
        whale.instance("late")
        assert source.instances() == []
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction), source.connection.cursor() as cursor:
            cursor.execute("DELETE FROM instances")


def test_a_wrong_key_is_refused_with_every_credential_that_it_does_not_decrypt(
    house: WhaleFall, migrate: Migrate, store: Engine
) -> None:
    house.credential("plain", "never mind")
    house.execute("UPDATE credentials SET password = 'in clear' WHERE name = 'plain'")
    before = row_versions(store)
    for apply in (False, True):
        with pytest.raises(MigrationError) as refused:
            migrate(apply, key=Fernet.generate_key().decode())
        lines = str(refused.value).splitlines()
        assert lines[0] == (
            "credential monitor: its password cannot be decrypted with the key in OLD_KEY; name the variable that has "
            "WhaleFall's PASSWORD_ENCRYPTION_KEY, or store the password first with `whalefall-capacity credential set "
            "monitor --username monitor`"
        )
        assert [line.split(":")[0] for line in lines] == [
            "credential monitor",
            "credential plain",
            "credential sleepy",
            "nothing was written",
        ]
    assert row_versions(store) == before


def test_passwords_without_a_key_are_planned_and_not_migrated(
    house: WhaleFall,  # noqa: ARG001 - what is migrated
    migrate: Migrate,
    store: Engine,
) -> None:
    before = row_versions(store)
    assert migrate(apply=False, key="").applied is False
    with pytest.raises(MigrationError) as refused:
        migrate(key="")
    assert str(refused.value) == (
        "the passwords of monitor, sleepy are encrypted: name with --key-env the environment variable that has "
        "WhaleFall's PASSWORD_ENCRYPTION_KEY; nothing was written"
    )
    assert row_versions(store) == before


def test_a_store_without_a_key_of_its_own_takes_no_passwords(whale: WhaleFall, migrate: Migrate, store: Engine) -> None:
    whale.credential("monitor", "secret")
    before = row_versions(store)
    with pytest.raises(CredentialError, match="stored credentials need WHALEFALL_SECRET_KEY"):
        migrate(secret_key=None)
    assert row_versions(store) == before


def test_a_password_that_is_stored_here_needs_no_key(whale: WhaleFall, migrate: Migrate, store: Engine) -> None:
    whale.instance("shop", credential_id=whale.credential("monitor", "from before"))
    set_credential(store, "monitor", "other", SecretStr("of here"), SecretStr(whale.key))
    report = migrate(key="")
    (line,) = [line for line in report.lines if line.table == "credentials"]
    assert line.reason == "monitor: the store has one of this name, for the username other"
    assert rows(store, "SELECT username FROM credentials") == [("other",)]
    assert rows(store, "SELECT is_active FROM instances") == [(True,)]


def test_names_that_cannot_be_kept_are_a_line_each_and_nothing_is_written(
    whale: WhaleFall, migrate: Migrate, store: Engine
) -> None:
    monitor = whale.credential("monitor", "secret")
    whale.instance("n" * 129, credential_id=monitor)
    whale.instance(" ")
    whale.instance("with port", credential_id=monitor, host="db.example:5432")
    whale.instance("gone", host="db.example:5432", is_active=False)
    before = row_versions(store)
    with pytest.raises(MigrationError) as refused:
        migrate()
    assert str(refused.value).splitlines() == [
        "instance ' ': its name cannot be kept: must not be blank; change it in WhaleFall",
        f"instance '{'n' * 60}': its name cannot be kept: String should have at most 128 characters; change it in "
        "WhaleFall",
        "instance 'with port': its host cannot be kept: must not include the port, which has its own field; "
        "change it in WhaleFall",
        "nothing was written",
    ]
    assert row_versions(store) == before


@pytest.mark.parametrize("name", ["monitor (env:SHOP_PASSWORD)", "  "])
def test_a_name_of_a_credential_that_would_be_a_reference_cannot_be_kept(
    whale: WhaleFall, migrate: Migrate, name: str
) -> None:
    whale.credential(name, "secret")
    with pytest.raises(MigrationError, match="the name cannot be kept, for the registry names references like that"):
        migrate()


def test_names_that_are_no_utf8_are_refused_before_anything_is_written(
    store_server: EmbeddedPostgres, empty_database: str, store: Engine, migrate: Migrate
) -> None:
    name = make_url(empty_database).database
    connection = psycopg2.connect(host=str(store_server.socket_dir), user="postgres", dbname="postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name}")
        cursor.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    connection.close()
    whale = make_whalefall(empty_database)
    shop = whale.instance("shop")
    whale.sizes(shop, DAYS[0], {"orders": 1})
    whale.execute(r"UPDATE database_size_stats SET database_name = E'caf\351'")
    before = row_versions(store)
    with pytest.raises(MigrationError) as refused:
        migrate()
    assert str(refused.value).splitlines() == [
        r"database b'caf\xe9': the name is not UTF-8 and cannot be kept",
        "nothing was written",
    ]
    assert row_versions(store) == before
