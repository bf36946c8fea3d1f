"""Names of directories are those that servers make, and those to which MariaDB converts a name."""

from __future__ import annotations

import pytest

from whalefall_capacity.collection.mysql.names import directory_of
from whalefall_capacity_tests.collection.mysql_family import databases
from whalefall_capacity_tests.servers import FamilyServer, MariadbFleetServer

# No name may have the first one, and surrogates are no characters.
PLANE = [chr(code) for code in range(1, 0x10000) if not 0xD800 <= code <= 0xDFFF]
CHUNK = 4000
# 255 bytes is the longest name that the file system allows, 64 characters the longest that the servers allow.
PER_NAME = 40
# All cased letters, and every thirtieth of the other characters.
LETTERS_AND_SOME = [c for number, c in enumerate(PLANE) if len(directory_of(c)) == 3 or number % 30 == 0]
RESERVED = [
    *("con", "CON", "Nul", "aux", "prn", "com1", "COM9", "lpt1", "lpt9"),
    *("com0", "com10", "lpt", "clock$", "conn", "con.x"),
]


def converted(server: MariadbFleetServer, names: list[str]) -> list[str]:
    """Return what MariaDB makes of names."""
    found: list[str] = []
    with server.connect() as cursor:
        for start in range(0, len(names), CHUNK):
            rows = " UNION ALL ".join(
                f"SELECT {number}, CAST(CONVERT(_ucs2 0x{name.encode('utf-16-be').hex()} USING filename) AS BINARY)"
                for number, name in enumerate(names[start : start + CHUNK])
            )
            cursor.execute(f"{rows} ORDER BY 1")
            found += [raw.decode() for _, raw in cursor.fetchall()]
    return found


def test_every_character_is_encoded_as_mariadb_converts_it(mariadb: MariadbFleetServer) -> None:
    wrong = [
        (hex(ord(character)), mine, theirs)
        for character, theirs in zip(PLANE, converted(mariadb, PLANE), strict=True)
        if (mine := directory_of(character)) != theirs
    ]
    assert len(PLANE) == 63_487
    assert wrong == []


@pytest.mark.slow
def test_directories_are_those_that_the_server_makes(family: FamilyServer) -> None:
    # A name may not end with a blank, and `#mysql50#` has a meaning at the beginning.
    chunks = [
        "".join(LETTERS_AND_SOME[start : start + PER_NAME]) for start in range(0, len(LETTERS_AND_SOME), PER_NAME)
    ]
    names = [f"n{chunk}z" for chunk in chunks] + RESERVED
    assert len(LETTERS_AND_SOME) > 3_500
    before = {path.name for path in family.server.data_dir.iterdir()}
    with databases(family, *names):
        made = {path.name for path in family.server.data_dir.iterdir()} - before
    assert made == {directory_of(name) for name in names}


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("web-logs", "web@002dlogs"),
        ("Café ÿ", "Caf@0p@0020@1r"),
        ("a/b.c", "a@002fb@002ec"),
        ("会员", "@4f1a@5458"),
        ("Заказы", "@N0@g0@q0@g0@n0@n1"),
        ("ΩΣ", "@7P@8Y"),
        ("Ⓐｂ", "@@A@b@"),
        ("con", "con@@@"),
        ("#mysql50#old-dir", "old-dir"),
    ],
)
def test_a_name_is_encoded(name: str, directory: str) -> None:
    assert directory_of(name) == directory
