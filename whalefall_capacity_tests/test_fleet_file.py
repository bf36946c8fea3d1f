"""fleet.yaml is checked whole before anything is changed; every error names the line and the field.

Passwords stand in it by reference only. One that was written into it by mistake is never repeated.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from whalefall_capacity.collection.sizes import ServerEngine, Tls
from whalefall_capacity.engine_catalog import known_engines
from whalefall_capacity.errors import FleetFileError
from whalefall_capacity.fleet_file import FleetFile, read_fleet_file

WHOLE = """\
instances:
  - name: shop
    engine: postgresql
    host: shop.example
    port: 5433
    database: orders
    tls: {mode: verify-full, ca_file: /etc/ssl/shop.pem}
    credential: {username: whalefall, password_env: SHOP_PASSWORD}
    capacity_limit: 2TiB
    description: Orders and customers
    active: false
  - name: blog
    engine: mariadb
    host: blog.example
    credential: {username: whalefall, password_file: /run/secrets/blog}
  - name: 日志
    engine: mysql
    host: /run/mysqld/mysqld.sock
    credential: {stored: monitoring}
"""
SERVER = """\
instances:
  - name: shop
    engine: postgresql
    host: shop.example
    credential: {username: whalefall, password_env: SHOP_PASSWORD}
"""
ONE_REFERENCE = "give exactly one of password_env, password_file and stored"
USERNAME_RULE = "username goes with password_env or password_file; a stored credential has its own"
SIZE_FORM = "must be a number of bytes or a size such as 500GiB or 2TiB"


def test_a_good_file_gives_its_servers_in_order(tmp_path: Path) -> None:
    shop, blog, logs = _read(tmp_path, WHOLE).instances
    assert (shop.name, shop.engine, shop.host, shop.port) == ("shop", ServerEngine.POSTGRESQL, "shop.example", 5433)
    assert (shop.database, shop.description, shop.active) == ("orders", "Orders and customers", False)
    assert shop.tls == Tls(mode="verify-full", ca_file="/etc/ssl/shop.pem")
    assert shop.capacity_limit == 2 * 1024**4
    assert (blog.name, blog.engine) == ("blog", ServerEngine.MARIADB)
    assert (logs.name, logs.engine) == ("日志", ServerEngine.MYSQL)


def test_what_a_server_leaves_out_has_a_default(tmp_path: Path) -> None:
    (shop,) = _read(tmp_path, SERVER).instances
    assert (shop.port, shop.database, shop.tls, shop.capacity_limit, shop.description) == (None,) * 5
    assert shop.active


PRIMARY_AND_REPLICA = """\
instances:
  - {name: shop, engine: postgresql, host: shop-1, credential: {stored: monitoring}}
  - name: shop-standby
    engine: postgresql
    host: shop-2
    credential: {stored: monitoring}
    replica_of: shop
"""


def test_a_replica_names_its_primary_wherever_that_stands_in_the_file(tmp_path: Path) -> None:
    _, standby = _read(tmp_path, PRIMARY_AND_REPLICA).instances
    assert standby.replica_of == "shop"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("replica_of: shop", "replica_of: shpo"), "names no instance of this file"),
        (("replica_of: shop", "replica_of: shop-standby"), "names the instance itself"),
        (("shop-1,", "shop-1, replica_of: shop-standby,"), "names a replica; name the primary that it follows"),
        (("shop, engine: postgresql", "shop, engine: mysql"), "names an instance of another engine"),
        (
            ("shop-1,", "shop-1, active: false,"),
            "names an instance that is not active, where its data would not be counted",
        ),
        (("replica_of: shop", "replica_of: ''"), "String should have at least 1 character"),
    ],
)
def test_a_replica_that_cannot_be_one_is_refused_with_its_line(
    tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    with pytest.raises(FleetFileError) as refused:
        _read(tmp_path, PRIMARY_AND_REPLICA.replace(*change))
    assert f"line 7: instances.1.replica_of: {problem}\n" in str(refused.value)


def test_a_replica_may_stay_with_a_primary_when_both_are_not_active(tmp_path: Path) -> None:
    file = PRIMARY_AND_REPLICA.replace("shop-1,", "shop-1, active: false,") + "    active: false\n"
    assert [entry.active for entry in _read(tmp_path, file).instances] == [False, False]


def test_a_password_is_known_by_its_reference(tmp_path: Path) -> None:
    shop, blog, logs = (entry.credential for entry in _read(tmp_path, WHOLE).instances)
    assert (shop.username, shop.reference) == ("whalefall", "env:SHOP_PASSWORD")
    assert (blog.username, blog.reference) == ("whalefall", "file:/run/secrets/blog")
    assert (logs.username, logs.reference, logs.stored) == (None, None, "monitoring")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("hots: shop.example", "hots: Extra inputs are not permitted"),
        ("port: five", "port: Input should be a valid integer, unable to parse string as an integer"),
        ("port: 0", "port: Input should be greater than or equal to 1"),
        ("port: 65536", "port: Input should be less than or equal to 65535"),
        ("port: yes", "port: must be a number"),
        ("database: [orders]", "database: Input should be a valid string"),
        ('database: ""', "database: String should have at least 1 character"),
        ("description: 2026", "description: Input should be a valid string"),
        ("active: perhaps", "active: Input should be a valid boolean, unable to interpret input"),
        ("tls: require", "tls: Input should be a dictionary or an instance of Tls"),
        (
            "tls: {mode: strict}",
            "tls.mode: Input should be 'disable', 'prefer', 'require', 'verify-ca' or 'verify-full'",
        ),
        ("tls: {ca: /etc/ssl/shop.pem}", "tls.ca: Unexpected keyword argument"),
        ("capacity_limit: 500GB", f"capacity_limit: {SIZE_FORM}"),
        ("capacity_limit: 500 apples", f"capacity_limit: {SIZE_FORM}"),
        ("capacity_limit: -1GiB", f"capacity_limit: {SIZE_FORM}"),
        ("capacity_limit: 0", "capacity_limit: Input should be greater than 0"),
        ("capacity_limit: true", "capacity_limit: must be a number"),
        ("capacity_limit: 8192PiB", "capacity_limit: Input should be less than or equal to 9223372036854775807"),
        (f"capacity_limit: {'9' * 400}G", "capacity_limit: Input should be less than or equal to 9223372036854775807"),
    ],
)
def test_a_bad_field_is_named_with_its_line(line: str, problem: str, tmp_path: Path) -> None:
    assert _problems(tmp_path, f"{SERVER}    {line}\n") == [f"line 6: instances.0.{problem}"]


@pytest.mark.parametrize("engine", ["mysql", "mariadb"])
def test_a_server_key_may_be_pinned_for_the_mysql_family(engine: str, tmp_path: Path) -> None:
    content = SERVER.replace("postgresql", engine) + "    tls: {server_public_key_file: /etc/mysql/public_key.pem}\n"
    (shop,) = _read(tmp_path, content).instances
    assert shop.tls == Tls(mode="prefer", server_public_key_file="/etc/mysql/public_key.pem")


def test_a_server_key_is_refused_where_no_server_has_one(tmp_path: Path) -> None:
    assert _problems(tmp_path, f"{SERVER}    tls: {{server_public_key_file: /etc/public_key.pem}}\n") == [
        "line 2: instances.0: tls.server_public_key_file is for MySQL servers only"
    ]


def test_an_empty_path_pins_no_server_key(tmp_path: Path) -> None:
    content = SERVER.replace("postgresql", "mysql") + "    tls: {server_public_key_file: ''}\n"
    assert _problems(tmp_path, content) == [
        "line 6: instances.0.tls.server_public_key_file: String should have at least 1 character"
    ]


@pytest.mark.parametrize(
    ("host", "stored"),
    [
        ("'[::1]'", "::1"),
        ("'[fe80::1%eth0]'", "fe80::1%eth0"),
        ("'[2001:0DB8::0001]'", "2001:db8::1"),
        ("'::1'", "::1"),
        ("db.example", "db.example"),
        ("/run/postgresql", "/run/postgresql"),
        ("/run/db:1", "/run/db:1"),
    ],
)
def test_a_host_may_be_an_address_in_brackets(host: str, stored: str, tmp_path: Path) -> None:
    (server,) = _read(tmp_path, SERVER.replace("host: shop.example", f"host: {host}")).instances
    assert server.host == stored


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("'[localhost]'", "host: must have an IPv6 address between the brackets"),
        ("'[]'", "host: must have an IPv6 address between the brackets"),
        ("db.example:5432", "host: must not include the port, which has its own field"),
        ("postgresql://whalefall:secret@db.example", "host: must be a name or an address, not a URL"),
        ("' '", "host: must not be blank"),
        ("'[::1]:5432'", "host: must not include the port, which has its own field"),
    ],
)
def test_a_host_that_is_none_is_refused(host: str, problem: str, tmp_path: Path) -> None:
    content = SERVER.replace("host: shop.example", f"host: {host}")
    assert _problems(tmp_path, content) == [f"line 4: instances.0.{problem}"]


@pytest.mark.parametrize(
    ("credential", "problem"),
    [
        ("{username: whalefall}", f"credential: {ONE_REFERENCE}"),
        ("{username: whalefall, password_env: A, password_file: /a}", f"credential: {ONE_REFERENCE}"),
        (
            "{username: whalefall, password_env: PGPASS}",
            "credential.password_env: is a variable of libpq, which gets to see none; choose another name, such as "
            "SHOP_PASSWORD",
        ),
        ("{password_env: A, stored: monitoring}", f"credential: {ONE_REFERENCE}"),
        ("{password_env: A}", f"credential: {USERNAME_RULE}"),
        ("{username: whalefall, stored: monitoring}", f"credential: {USERNAME_RULE}"),
        ('{username: "", password_env: A}', "credential.username: String should have at least 1 character"),
        ("{username: 7, password_env: A}", "credential.username: Input should be a valid string"),
        ("whalefall", "credential: Input should be a valid dictionary or instance of CredentialEntry"),
    ],
)
def test_a_credential_is_one_reference_and_who_it_is_for(credential: str, problem: str, tmp_path: Path) -> None:
    content = SERVER.replace("{username: whalefall, password_env: SHOP_PASSWORD}", credential)
    assert _problems(tmp_path, content) == [f"line 5: instances.0.{problem}"]


def test_a_missing_field_is_named_with_the_line_of_its_server(tmp_path: Path) -> None:
    content = SERVER + "  - name: blog\n    engine: dbase\n"
    assert _problems(tmp_path, content) == [
        f"line 7: instances.1.engine: must be one of {', '.join(known_engines())}; WHALEFALL_ENGINES adds others",
        "line 6: instances.1.host: Field required",
        "line 6: instances.1.credential: Field required",
    ]


def test_a_field_of_a_credential_is_named_with_its_own_line(tmp_path: Path) -> None:
    content = SERVER.replace(
        "{username: whalefall, password_env: SHOP_PASSWORD}", "\n      username: whalefall\n      password: x"
    )
    assert _problems(tmp_path, content) == ["line 7: instances.0.credential.password: Extra inputs are not permitted"]


def test_names_of_servers_are_distinct(tmp_path: Path) -> None:
    content = SERVER + SERVER.removeprefix("instances:\n")
    assert _problems(tmp_path, content) == ["line 1: instances: names must be distinct; more than once: shop"]


def test_names_that_differ_in_case_are_distinct(tmp_path: Path) -> None:
    content = SERVER + SERVER.removeprefix("instances:\n").replace("shop", "Shop")
    assert [entry.name for entry in _read(tmp_path, content).instances] == ["shop", "Shop"]


@pytest.mark.parametrize("name", ['""', "' '", "x" * 129, "2026", "no"])
def test_the_name_of_a_server_is_a_text_of_1_to_128_characters(name: str, tmp_path: Path) -> None:
    (problem,) = _problems(tmp_path, SERVER.replace("name: shop", f"name: {name}"))
    assert problem.startswith("line 2: instances.0.name: ")


def test_a_field_that_stands_twice_is_refused(tmp_path: Path) -> None:
    content = SERVER + "    host: other.example\n"
    assert _problems(tmp_path, content) == ["line 6: host: appears twice in one mapping"]


def test_a_second_list_of_servers_does_not_silently_replace_the_first(tmp_path: Path) -> None:
    content = SERVER + SERVER.replace("shop", "blog")
    assert _problems(tmp_path, content) == ["line 6: instances: appears twice in one mapping"]


def test_the_same_field_of_two_servers_is_no_repetition(tmp_path: Path) -> None:
    anchored = SERVER.replace("- name", "- &shop\n    name") + "  - <<: *shop\n    name: blog\n"
    assert [(entry.name, entry.host) for entry in _read(tmp_path, anchored).instances] == [
        ("shop", "shop.example"),
        ("blog", "shop.example"),
    ]


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "- name: shop\n", "shop\n", "{}\n"])
def test_a_file_without_a_list_of_servers_is_refused(content: str, tmp_path: Path) -> None:
    assert _problems(tmp_path, content) == ["line 1: instances: Field required"]


def test_a_fleet_of_no_server_is_refused(tmp_path: Path) -> None:
    assert _problems(tmp_path, "instances: []\n") == [
        "line 1: instances: List should have at least 1 item after validation, not 0"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("instances: [\n", "line 2: not YAML: while parsing a flow node expected the node content"),
        ("instances:\n\t- name: shop\n", "line 2: not YAML: while scanning for the next token found character '\\t'"),
        (f"{SERVER}---\n{SERVER}", "line 6: not YAML: expected a single document in the stream"),
        ("instances: \x00\n", "not YAML: unacceptable character #x0000"),
    ],
)
def test_what_is_not_yaml_is_named_with_its_line(content: str, problem: str, tmp_path: Path) -> None:
    assert _refusal(tmp_path, content).startswith(f"{tmp_path / 'fleet.yaml'}: {problem}")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("2026-13-01", "timestamp"),
        ("!!timestamp Tr0ub4dor", "timestamp"),
        ("!!bool Tr0ub4dor", "bool"),
        ("!!int Tr0ub4dor", "int"),
        ("!!int ''", "int"),
        ("0x_", "int"),
        ("9" * 5000, "int"),
        ("!!float Tr0ub4dor", "float"),
        # Octal and sexagesimal to YAML, and nothing that anybody means by a port or a size.
        ("0777", "int"),
        ("-01_7", "int"),
        ("1:30", "int"),
        ("1:30.5", "float"),
        ("01.5", "float"),
    ],
)
def test_a_value_that_its_yaml_type_does_not_allow_is_refused_with_its_line(
    value: str, kind: str, tmp_path: Path
) -> None:
    assert _refusal(tmp_path, f"{SERVER}    description: {value}\n") == (
        f"{tmp_path / 'fleet.yaml'}: line 6: not YAML: not a valid {kind}; text that looks like one needs quotation "
        "marks; nothing was changed"
    )


@pytest.mark.parametrize("content", ["[" * 2_000, "instances: " + "{a: " * 2_000, "- " * 2_000])
def test_a_file_that_is_nested_too_deeply_is_refused(content: str, tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, content)
    assert refusal == (
        f"{tmp_path / 'fleet.yaml'}: not YAML: its brackets or its lists are nested too deeply; nothing was changed"
    )


@pytest.mark.parametrize("field", ["name", "host", "description", "database"])
def test_a_nul_character_is_refused_with_its_line(field: str, tmp_path: Path) -> None:
    content = "".join(line for line in SERVER.splitlines(keepends=True) if f" {field}:" not in line)
    content = content.replace("  - engine", "  -\n    engine") + f'    {field}: "a\\0b"\n'
    line = len(content.splitlines())
    assert _problems(tmp_path, content) == [f"line {line}: must not contain a NUL character"]


def test_a_mapping_that_contains_itself_is_refused(tmp_path: Path) -> None:
    assert _problems(tmp_path, "instances: &all [*all]\n") == [
        "line 1: instances.0: Input should be a valid dictionary or instance of InstanceEntry"
    ]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FleetFileError) as raised:
        read_fleet_file(tmp_path / "fleet.yaml")
    assert str(raised.value).startswith(f"{tmp_path / 'fleet.yaml'}: cannot be read: [Errno 2] No such file")
    assert str(raised.value).endswith("; nothing was changed")


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_bytes(b"instances: \xff\n")
    with pytest.raises(FleetFileError, match="cannot be read: 'utf-8' codec can't decode byte 0xff in position 11"):
        read_fleet_file(tmp_path / "fleet.yaml")


@pytest.mark.parametrize(
    ("size", "size_bytes"),
    [
        ("1000", 1000),
        ('"1000"', 1000),
        ("1000B", 1000),
        ("1KiB", 1024),
        ("1k", 1024),
        ("500GiB", 536_870_912_000),
        ("500 gib", 536_870_912_000),
        ("1.5Ti", 1_649_267_441_664),
        ("8191PiB", 9_222_246_136_947_933_184),
        ('"9007199254740993"', 9_007_199_254_740_993),
    ],
)
def test_a_size_is_bytes_or_has_a_binary_unit(size: str, size_bytes: int, tmp_path: Path) -> None:
    (shop,) = _read(tmp_path, f"{SERVER}    capacity_limit: {size}\n").instances
    assert shop.capacity_limit == size_bytes


@pytest.mark.parametrize(
    "line",
    [
        "password: Tr0ub4dor",
        "port: Tr0ub4dor",
        "capacity_limit: Tr0ub4dor",
        "tls: Tr0ub4dor",
        "password: *Tr0ub4dor",
        "password: !Tr0ub4dor x",
        "password: %Tr0ub4dor",
        'password: "Tr0ub4dor',
    ],
)
def test_a_password_that_stands_in_the_file_by_mistake_is_not_repeated(line: str, tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, f"{SERVER}    {line}\n")
    assert refusal.startswith(f"{tmp_path / 'fleet.yaml'}: line ")
    assert "Tr0ub4dor" not in refusal


def _read(folder: Path, content: str) -> FleetFile:
    path = folder / "fleet.yaml"
    path.write_text(content, encoding="utf-8")
    return read_fleet_file(path)


def _refusal(folder: Path, content: str) -> str:
    with pytest.raises(FleetFileError) as raised:
        _read(folder, content)
    return str(raised.value)


def _problems(folder: Path, content: str) -> list[str]:
    """Return what is wrong with *content*, without the name of the file and the closing line."""
    *lines, end = _refusal(folder, content).splitlines()
    assert end == "nothing was changed"
    return [line.removeprefix(f"{folder / 'fleet.yaml'}: ") for line in lines]


def test_relative_paths_are_seen_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fleet.yaml").write_text(
        """
instances:
  - name: shop
    engine: mysql
    host: db.example
    tls: {mode: verify-ca, ca_file: certs/ca.pem, cert_file: ../own.pem, key_file: /etc/own.key,
          server_public_key_file: public.pem}
    credential: {username: whalefall, password_file: secrets/shop}
  - name: blog
    engine: postgresql
    host: db.example
    tls: {mode: verify-full, ca_file: system}
    credential: {username: whalefall, password_env: BLOG}
"""
    )
    monkeypatch.chdir(tmp_path)
    shop, blog = read_fleet_file(Path("etc/fleet.yaml")).instances
    folder = tmp_path / "etc"
    assert shop.credential.reference == f"file:{folder}/secrets/shop"
    assert shop.tls == Tls(
        "verify-ca", f"{folder}/certs/ca.pem", f"{folder}/../own.pem", "/etc/own.key", f"{folder}/public.pem"
    )
    assert blog.tls == Tls("verify-full", "system")
