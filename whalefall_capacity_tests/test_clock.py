"""The clock of the product: one place reads it, and the tests can be run on any day through it."""

from __future__ import annotations

import re
from pathlib import Path

import whalefall_capacity

READS_THE_CLOCK = re.compile(r"\b(datetime\.(now|utcnow|today)|date\.today|time\.(time|time_ns|localtime|gmtime))\(")
# In SQL, these would be the day of the server's zone.
DAY_OF_THE_SERVER = re.compile(r"\b(current_date|localtimestamp|now\(\)::date)\b", re.IGNORECASE)


def files_with(pattern: re.Pattern[str]) -> set[str]:
    package = Path(whalefall_capacity.__file__).parent
    files = [*package.rglob("*.py"), *package.rglob("*.sql")]
    return {str(file.relative_to(package)) for file in files if pattern.search(file.read_text())}


def test_one_place_asks_what_time_it_is() -> None:
    assert files_with(READS_THE_CLOCK) == {"periods.py"}


def test_no_statement_takes_the_day_from_the_server() -> None:
    assert files_with(DAY_OF_THE_SERVER) == set()
