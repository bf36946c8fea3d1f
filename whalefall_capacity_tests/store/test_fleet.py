"""The registry of the fleet.

Applying a fleet file makes the registry equal to it: what the file has is created or changed, what it does not
have is disabled and never removed, what is equal is not touched. Passwords are looked up when the fleet is
visited; one that cannot be found costs its own server alone.
"""

from __future__ import annotations

from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, text

from whalefall_capacity.collection.sizes import FailedVisit, ServerEngine, Target, Tls
from whalefall_capacity.errors import CredentialError, FleetError, FleetFileError
from whalefall_capacity.fleet_file import FleetFile
from whalefall_capacity.store.fleet import FLEET, Change, apply_fleet, fleet_ids, list_instances, load_roster
from whalefall_capacity.store.fleet_credentials import set_credential
from whalefall_capacity.store.sizes.history_import import import_history
from whalefall_capacity.store.sizes.stats import write_visits
from whalefall_capacity_tests.store.records import at_once, history, row_versions, rows, visit

KEY = SecretStr(Fernet.generate_key().decode())
INSTANCE = "SELECT name, is_active, deleted_at IS NOT NULL FROM instances ORDER BY name"


def entry(name: str, **changes: Any) -> dict[str, Any]:
    """Return an entry of a fleet file; None takes a field out."""
    fields = {
        "name": name,
        "engine": "postgresql",
        "host": "db.example",
        "credential": {"username": "whalefall", "password_env": "PW"},
    }
    return {field: value for field, value in (fields | changes).items() if value is not None}


def fleet(*entries: dict[str, Any]) -> FleetFile:
    return FleetFile.model_validate({"instances": list(entries)})


def apply(store: Engine, *entries: dict[str, Any], dry_run: bool = False) -> list[Change]:
    return apply_fleet(store, fleet(*entries), dry_run)


def only_target(store: Engine, secret_key: SecretStr | None = None) -> Target:
    (target,) = load_roster(store, secret_key, fleet_ids(store)).targets
    return target


# Applying a file


def test_an_instance_that_is_not_registered_is_created(store: Engine) -> None:
    big = entry(
        "shop",
        engine="mysql",
        database="app",
        tls={"mode": "verify-full", "ca_file": "/ca.pem"},
        capacity_limit="2TiB",
        description="sells",
    )
    assert apply(store, big) == [Change("shop", "created")]
    assert rows(
        store,
        "SELECT name, db_type, host, port, database_name, tls, capacity_limit_bytes, description, is_active, "
        "deleted_at FROM instances",
    ) == [
        (
            "shop",
            "mysql",
            "db.example",
            3306,
            "app",
            {"mode": "verify-full", "ca_file": "/ca.pem"},
            2_199_023_255_552,
            "sells",
            True,
            None,
        )
    ]


def test_what_a_file_does_not_say_is_not_known(store: Engine) -> None:
    apply(store, entry("shop"))
    columns = "port, database_name, tls, capacity_limit_bytes, description, version, last_connected_at"
    assert rows(store, f"SELECT {columns} FROM instances") == [(5432, None, None, None, None, None, None)]


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ({}, {"host": "new.example"}, "host"),
        ({}, {"port": 5433}, "port"),
        ({}, {"engine": "mariadb", "port": 5432}, "db_type"),
        ({}, {"database": "app"}, "database_name"),
        ({"database": "app"}, {}, "database_name"),
        ({}, {"tls": {"mode": "require"}}, "tls"),
        ({"tls": {"mode": "require"}}, {"tls": {"mode": "disable"}}, "tls"),
        ({"tls": {"mode": "require"}}, {}, "tls"),
        ({}, {"capacity_limit": 1024}, "capacity_limit_bytes"),
        ({"capacity_limit": 1024}, {}, "capacity_limit_bytes"),
        ({}, {"description": "sells"}, "description"),
        ({"description": "sells"}, {}, "description"),
        ({}, {"active": False}, "is_active"),
        ({"active": False}, {}, "is_active"),
        ({}, {"credential": {"username": "other", "password_env": "PW"}}, "credential"),
        ({}, {"credential": {"username": "whalefall", "password_env": "OTHER"}}, "credential"),
        ({}, {"credential": {"username": "whalefall", "password_file": "PW"}}, "credential"),
    ],
)
def test_a_change_names_the_field_and_is_done_once(
    store: Engine, before: dict[str, Any], after: dict[str, Any], field: str
) -> None:
    apply(store, entry("shop", **before))
    ids = rows(store, "SELECT id FROM instances")
    assert apply(store, entry("shop", **after)) == [Change("shop", "changed", (field,))]
    assert apply(store, entry("shop", **after)) == [Change("shop", "unchanged")]
    assert rows(store, "SELECT id FROM instances") == ids


def test_applying_a_file_again_touches_no_row(store: Engine) -> None:
    set_credential(store, "vault", "whalefall", SecretStr("secret"), KEY)
    entries = [
        entry("shop", tls={"mode": "require"}, capacity_limit="1GiB", description="sells", database="app", port=6432),
        entry("bank", credential={"stored": "vault"}),
        entry("off", active=False),
    ]
    apply(store, *entries, entry("gone"))
    apply(store, *entries)
    before = row_versions(store)
    assert apply(store, *entries) == [
        Change("shop", "unchanged"),
        Change("bank", "unchanged"),
        Change("off", "unchanged"),
    ]
    assert row_versions(store) == before


def test_only_instances_that_change_are_touched(store: Engine) -> None:
    apply(store, entry("shop"), entry("bank"))
    before = dict(rows(store, "SELECT name, xmin FROM instances"))
    apply(store, entry("shop", host="new.example"), entry("bank"))
    after = dict(rows(store, "SELECT name, xmin FROM instances"))
    assert [name for name in after if after[name] != before[name]] == ["shop"]


def test_an_instance_that_the_file_does_not_name_is_disabled_and_keeps_everything(store: Engine) -> None:
    apply(store, entry("shop"), entry("bank"))
    ((bank,),) = rows(store, "SELECT id FROM instances WHERE name = 'bank'")
    write_visits(store, date(2026, 3, 9), [visit(bank, {"ledger": 7})])
    assert apply(store, entry("shop")) == [Change("shop", "unchanged"), Change("bank", "disabled")]
    assert rows(store, INSTANCE) == [("bank", False, True), ("shop", True, False)]
    assert rows(store, "SELECT count(*) FROM database_size_stats") == [(1,)]
    assert apply(store, entry("shop")) == [Change("shop", "unchanged")]


def test_an_instance_that_comes_back_is_the_same_instance(store: Engine) -> None:
    apply(store, entry("shop"), entry("bank"))
    before = rows(store, "SELECT id, name, created_at FROM instances ORDER BY id")
    apply(store, entry("shop"))
    assert apply(store, entry("shop"), entry("bank")) == [
        Change("shop", "unchanged"),
        Change("bank", "changed", ("is_active",)),
    ]
    assert rows(store, INSTANCE) == [("bank", True, False), ("shop", True, False)]
    assert rows(store, "SELECT id, name, created_at FROM instances ORDER BY id") == before


def test_an_instance_can_be_kept_in_the_file_and_not_be_watched(store: Engine) -> None:
    apply(store, entry("shop"), entry("bank", active=False))
    assert rows(store, INSTANCE) == [("bank", False, False), ("shop", True, False)]


def test_an_instance_known_only_from_imports_is_described_by_the_file(store: Engine) -> None:
    import_history(store, history(("shop", "orders", date(2026, 3, 9), 1)), "sizes.csv", create_instances=True)
    before = rows(store, "SELECT id FROM instances")
    (change,) = apply(store, entry("shop"))
    assert change == Change("shop", "changed", ("db_type", "host", "port", "description", "is_active", "credential"))
    assert rows(store, "SELECT id FROM instances") == before


def test_an_instance_known_only_from_imports_is_not_disabled_by_a_file_without_it(store: Engine) -> None:
    import_history(store, history(("old", "orders", date(2026, 3, 9), 1)), "sizes.csv", create_instances=True)
    assert apply(store, entry("shop")) == [Change("shop", "created")]
    assert rows(store, INSTANCE) == [("old", False, False), ("shop", True, False)]


@pytest.mark.parametrize("names", [("shop", "Shop"), ("a'b", 'a"b'), ("库", "庫"), ("back\\slash", "back/slash")])
def test_names_are_taken_as_they_are(store: Engine, names: tuple[str, str]) -> None:
    apply(store, *map(entry, names))
    assert {name for name, *_ in rows(store, INSTANCE)} == set(names)
    assert [change.action for change in apply(store, *map(entry, names))] == ["unchanged", "unchanged"]


def test_a_dry_run_says_the_same_and_touches_nothing(store: Engine) -> None:
    apply(store, entry("shop"), entry("bank"))
    before = row_versions(store)
    wanted = [entry("shop", host="new.example"), entry("new", credential={"username": "u", "password_env": "NEW"})]
    foreseen = apply(store, *wanted, dry_run=True)
    assert foreseen == [Change("shop", "changed", ("host",)), Change("new", "created"), Change("bank", "disabled")]
    assert row_versions(store) == before
    assert apply(store, *wanted) == foreseen


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_stored_credential_that_is_not_there_refuses_the_whole_file(store: Engine, dry_run: bool) -> None:
    set_credential(store, "vault", "whalefall", SecretStr("secret"), KEY)
    apply(store, entry("shop"), entry("bank"))
    before = row_versions(store)
    with pytest.raises(FleetFileError) as caught:
        apply(
            store,
            entry("shop", host="new.example"),
            *(entry(name, credential={"stored": name}) for name in ("vault", "safe", "chest")),
            dry_run=dry_run,
        )
    assert str(caught.value) == (
        "stored credentials chest, safe do not exist: store them with "
        "`whalefall-capacity credential set NAME --username USER`; nothing was changed"
    )
    assert row_versions(store) == before


def test_two_who_apply_the_same_file_at_once_do_the_work_once(store: Engine) -> None:
    for number in range(10):
        entries = [entry(f"shop {number} {place}") for place in range(20)]
        results = at_once(partial(apply, store, *entries), partial(apply, store, *entries[::-1]))
        created = [[change.action for change in result].count("created") for result in results]
        assert sorted(created) == [0, 20]


def test_two_who_apply_different_files_at_once_leave_one_of_them(store: Engine) -> None:
    for number in range(10):
        left = [entry(f"left {number}"), entry("both", host="left.example")]
        right = [entry("both", host="right.example"), entry(f"right {number}")]
        at_once(partial(apply, store, *left), partial(apply, store, *right))
        active = rows(store, "SELECT name, host FROM instances WHERE is_active ORDER BY name")
        assert active in (
            [("both", "left.example"), (f"left {number}", "db.example")],
            [("both", "right.example"), (f"right {number}", "db.example")],
        )


# Credentials


def test_instances_with_the_same_reference_share_a_credential(store: Engine) -> None:
    apply(store, entry("shop"), entry("bank"))
    assert rows(store, "SELECT username, secret_reference, password FROM credentials") == [
        ("whalefall", "env:PW", None)
    ]


def test_what_a_changed_credential_says_takes_effect_every_time(
    store: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", "first")
    monkeypatch.setenv("PW2", "second")
    file = tmp_path / "password"
    file.write_text("third\n")
    set_credential(store, "vault", "keeper", SecretStr("fourth"), KEY)
    steps: list[tuple[dict[str, str], str, str]] = [
        ({"username": "whalefall", "password_env": "PW"}, "whalefall", "first"),
        ({"username": "whalefall", "password_env": "PW2"}, "whalefall", "second"),
        ({"username": "other", "password_env": "PW2"}, "other", "second"),
        ({"username": "other", "password_file": str(file)}, "other", "third"),
        ({"stored": "vault"}, "keeper", "fourth"),
        # Back to what is still there from before.
        ({"username": "whalefall", "password_env": "PW"}, "whalefall", "first"),
        ({"username": "other", "password_env": "PW2"}, "other", "second"),
    ]
    for credential, username, password in steps:
        apply(store, entry("shop", credential=credential))
        target = only_target(store, KEY)
        assert (target.username, target.password.get_secret_value()) == (username, password)


def test_a_stored_credential_that_is_stored_again_takes_effect_without_applying(store: Engine) -> None:
    set_credential(store, "vault", "old", SecretStr("old secret"), KEY)
    apply(store, entry("shop", credential={"stored": "vault"}))
    set_credential(store, "vault", "new", SecretStr("new secret"), KEY)
    target = only_target(store, KEY)
    assert (target.username, target.password.get_secret_value()) == ("new", "new secret")
    assert apply(store, entry("shop", credential={"stored": "vault"})) == [Change("shop", "unchanged")]


@pytest.mark.parametrize("name", ["whalefall (env:PW)", "whalefall (file:/run/secrets/pw)"])
def test_a_password_cannot_be_stored_in_the_place_of_a_reference(store: Engine, name: str) -> None:
    apply(store, entry("shop"))
    before = row_versions(store)
    with pytest.raises(CredentialError, match="choose another name"):
        set_credential(store, name, "intruder", SecretStr("secret"), KEY)
    assert row_versions(store) == before


def test_a_stored_password_is_ciphertext(store: Engine) -> None:
    set_credential(store, "vault", "whalefall", SecretStr("geheim"), KEY, "for the shop")
    ((username, password, reference, description),) = rows(
        store, "SELECT username, password, secret_reference, description FROM credentials"
    )
    assert (username, reference, description) == ("whalefall", None, "for the shop")
    assert "geheim" not in password
    assert Fernet(KEY.get_secret_value()).decrypt(password) == b"geheim"


def test_a_password_is_not_stored_without_a_key(store: Engine) -> None:
    with pytest.raises(CredentialError, match="stored credentials need WHALEFALL_SECRET_KEY"):
        set_credential(store, "vault", "whalefall", SecretStr("geheim"), None)
    assert rows(store, "SELECT count(*) FROM credentials") == [(0,)]


# Who is to be visited


def test_the_roster_is_the_active_fleet_by_name(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "geheim")
    apply(store, entry("gone"))
    apply(
        store,
        entry("shop", engine="mariadb", port=3307, database="app", tls={"mode": "require"}),
        entry("bank"),
        entry("off", active=False),
    )
    roster = load_roster(store, None, fleet_ids(store))
    assert roster.unresolved == []
    assert len(roster) == 2
    assert [(target.name, target.engine, target.port) for target in roster.targets] == [
        ("bank", ServerEngine.POSTGRESQL, 5432),
        ("shop", ServerEngine.MARIADB, 3307),
    ]
    shop = roster.targets[1]
    assert (shop.host, shop.database, shop.username, shop.tls) == ("db.example", "app", "whalefall", Tls("require"))
    assert shop.password.get_secret_value() == "geheim"


def test_the_roster_can_be_some_of_the_fleet(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "geheim")
    apply(store, entry("shop"), entry("bank"))
    ((bank,),) = rows(store, "SELECT id FROM instances WHERE name = 'bank'")
    assert [target.name for target in load_roster(store, None, fleet_ids(store, [bank, bank])).targets] == ["bank"]
    assert fleet_ids(store, []) == []


def test_the_fleet_can_be_read_by_ranges_of_ids(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "geheim")
    apply(store, entry("shop"), entry("bank"), entry("wiki"), entry("gone"))
    apply(store, entry("shop"), entry("bank"), entry("wiki"))
    ids = dict(rows(store, "SELECT name, id FROM instances"))
    first, middle, last = sorted(ids[name] for name in ("shop", "bank", "wiki"))
    assert sorted(fleet_ids(store, id_range=(first, middle))) == [first, middle]
    assert fleet_ids(store, id_range=(last, last)) == [last]
    assert fleet_ids(store, [first, last], (middle, last)) == [last]
    # Whoever left belongs to another range.
    assert fleet_ids(store, [ids["gone"], last], (last, last)) == [last]
    with pytest.raises(FleetError, match="not in the fleet"):
        fleet_ids(store, [ids["gone"], last], (1, 2**31 - 1))


@pytest.mark.parametrize("unknown", [0, -7])
def test_an_id_that_no_instance_can_have_is_refused(store: Engine, unknown: int) -> None:
    with pytest.raises(FleetError, match=f"instance ids {unknown} are not in the fleet"):
        fleet_ids(store, [unknown])


def test_a_range_of_ids_reads_the_instances_in_it_alone(store: Engine) -> None:
    with store.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO instances (name, db_type, is_active) "
            "SELECT 'server-' || n, 'postgresql', true FROM generate_series(1, 20000) AS n"
        )
    (first,) = rows(store, "SELECT min(id) FROM instances")[0]
    with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE instances")
        values = {"ids": None, "first_id": first + 10_000, "last_id": first + 10_099}
        plan = connection.execute(text(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {FLEET}"), values).scalar_one()
    assert rows_read(plan[0]["Plan"]) == 100


def rows_read(node: dict[str, Any]) -> int:
    """Return how many rows the scans below *node* of a plan have read, those thrown away too."""
    below = node.get("Plans", [])
    if below:
        return sum(rows_read(child) for child in below)
    read: int = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return read * int(node["Actual Loops"])


def test_ids_that_are_not_in_the_fleet_are_refused(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "geheim")
    apply(store, entry("shop"), entry("gone"))
    apply(store, entry("shop"))
    ids = dict(rows(store, "SELECT name, id FROM instances"))
    with pytest.raises(FleetError) as caught:
        fleet_ids(store, [4711, ids["shop"], ids["gone"]])
    assert str(caught.value) == (
        f"instance ids {ids['gone']}, 4711 are not in the fleet; `whalefall-capacity fleet list` shows it"
    )


def test_a_password_that_cannot_be_found_costs_its_own_server_alone(
    store: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", "geheim")
    monkeypatch.delenv("UNSET", raising=False)
    set_credential(store, "vault", "whalefall", SecretStr("geheim"), SecretStr(Fernet.generate_key().decode()))
    apply(
        store,
        entry("good"),
        entry("no variable", credential={"username": "u", "password_env": "UNSET"}),
        entry("no file", credential={"username": "u", "password_file": str(tmp_path / "absent")}),
        entry("other key", credential={"stored": "vault"}),
    )
    roster = load_roster(store, KEY, fleet_ids(store))
    assert [target.name for target in roster.targets] == ["good"]
    assert len(roster) == 4
    assert [(failed.name, failed.error.partition(": ")[2].split(": ")[0]) for failed in roster.unresolved] == [
        (
            "no file",
            f"password file {tmp_path / 'absent'} cannot be read",
        ),
        ("no variable", "environment variable UNSET is not set"),
        ("other key", "stored credential vault cannot be decrypted"),
    ]
    assert "geheim" not in str(roster)


def test_a_stored_password_without_a_key_says_how_to_get_one(store: Engine) -> None:
    set_credential(store, "vault", "whalefall", SecretStr("geheim"), KEY)
    apply(store, entry("shop", credential={"stored": "vault"}))
    (failed,) = load_roster(store, None, fleet_ids(store)).unresolved
    assert failed.error == (
        "shop: stored credentials need WHALEFALL_SECRET_KEY; `whalefall-capacity credential new-key` prints a new one"
    )


def test_an_instance_without_a_host_is_a_failed_visit(store: Engine) -> None:
    import_history(store, history(("old", "orders", date(2026, 3, 9), 1)), "sizes.csv", create_instances=True)
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET is_active = true"))
    ((old,),) = rows(store, "SELECT id FROM instances")
    assert load_roster(store, None, fleet_ids(store)).unresolved == [
        FailedVisit(old, "old", "old: has no host or no credential; describe it in fleet.yaml and apply that", 0.0)
    ]


def test_an_empty_password_is_a_password(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "")
    apply(store, entry("shop"))
    assert only_target(store).password.get_secret_value() == ""


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_password_file_may_end_in_a_line_break(store: Engine, tmp_path: Path, ending: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(f" geheim {ending}".encode())
    apply(store, entry("shop", credential={"username": "u", "password_file": str(file)}))
    assert only_target(store).password.get_secret_value() == " geheim "


# The list


def test_the_list_has_every_instance_with_its_active_databases(store: Engine) -> None:
    apply(store, entry("shop", capacity_limit=1024, description="sells"), entry("gone"))
    apply(store, entry("shop", capacity_limit=1024, description="sells"))
    ids = dict(rows(store, "SELECT name, id FROM instances"))
    write_visits(store, date(2026, 3, 9), [visit(ids["shop"], {"orders": 1, "users": 2, "old": 3})])
    write_visits(store, date(2026, 3, 10), [visit(ids["shop"], {"orders": 1, "users": None})])
    gone, shop = list_instances(store)
    assert (gone.name, gone.is_active, gone.databases, gone.last_connected_at) == ("gone", False, 0, None)
    assert (shop.name, shop.is_active, shop.databases, shop.version) == ("shop", True, 2, "16.4")
    assert (shop.capacity_limit_bytes, shop.description) == (1024, "sells")


def test_a_replica_keeps_its_primary_until_the_file_says_otherwise(store: Engine) -> None:
    standby = entry("a-standby", replica_of="shop")
    assert apply(store, standby, entry("shop")) == [Change("a-standby", "created"), Change("shop", "created")]
    assert [(one.name, one.replica_of) for one in list_instances(store)] == [("a-standby", "shop"), ("shop", None)]
    assert apply(store, standby, entry("shop"))[0] == Change("a-standby", "unchanged")
    changes = apply(store, entry("a-standby"), entry("shop"))
    assert changes == [Change("a-standby", "changed", ("replica_of",)), Change("shop", "unchanged")]
    assert [one.replica_of for one in list_instances(store)] == [None, None]
    assert apply(store, entry("a-standby", replica_of="shop"), entry("shop"), dry_run=True)[0].action == "changed"
    assert [one.replica_of for one in list_instances(store)] == [None, None]
