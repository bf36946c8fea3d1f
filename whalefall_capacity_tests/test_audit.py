"""`make audit`: the dependencies are well only when each of them was looked up, and found without an advisory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from whalefall_capacity.settings import PROJECT_ROOT

WELL = {"name": "rich", "version": "14.0.0", "vulns": []}
SKIPPED = {"name": "typer", "skip_reason": "Dependency not found on PyPI and could not be audited: typer (0.16.0)"}
VULNERABLE = {
    "name": "jinja2",
    "version": "3.1.5",
    "vulns": [{"id": "PYSEC-2025-1", "fix_versions": ["3.1.6"], "aliases": [], "description": "Sandbox breakout."}],
}


def audit(folder: Path, stdout: str, stderr: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the script with a program in place of pip-audit that prints what an index would have it print."""
    program = folder / "pip-audit"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdout.write({stdout!r})\nsys.stderr.write({stderr!r})\n"
        f"sys.exit({status})\n"
    )
    program.chmod(0o700)
    return subprocess.run(
        [sys.executable, PROJECT_ROOT / "scripts" / "audit.py", program, "requirements.lock"],
        capture_output=True,
        text=True,
        check=False,
    )


def listed(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_it_says_how_many_packages_are_well(tmp_path: Path) -> None:
    done = audit(tmp_path, listed(WELL, WELL), "No known vulnerabilities found\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "no known vulnerability in 2 packages\n", "")


def test_it_fails_and_names_what_is_vulnerable_and_where_it_is_mended(tmp_path: Path) -> None:
    done = audit(tmp_path, listed(WELL, VULNERABLE), "Found 1 known vulnerability in 1 package\n", 1)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "jinja2 3.1.5: PYSEC-2025-1, fixed in 3.1.6\n"


@pytest.mark.parametrize(("packages", "unknown"), [((SKIPPED,), "1 of 1"), ((WELL, SKIPPED), "1 of 2")])
def test_a_package_that_the_index_does_not_know_is_not_well(
    tmp_path: Path, packages: tuple[dict[str, Any], ...], unknown: str
) -> None:
    done = audit(tmp_path, listed(*packages), "No known vulnerabilities found\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"The index of advisories does not know {unknown} packages (typer...), so nothing is known about them: "
        "run this where https://pypi.org is reachable\n"
    )


def test_what_is_vulnerable_is_told_also_where_others_are_not_known(tmp_path: Path) -> None:
    done = audit(tmp_path, listed(VULNERABLE, SKIPPED), status=1)
    assert done.returncode == 1
    assert [line.partition(" ")[0] for line in done.stderr.splitlines()] == ["jinja2", "The"]


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason"),
    [
        ("", "Traceback\nServiceError: HTTPSConnectionPool(host='pypi.org')\n", "ServiceError: HTTPSConnectionPool"),
        ("", "", "it said nothing"),
        ("[]", "ERROR: odd\n", "ERROR: odd"),
    ],
    ids=["no network", "silence", "something else"],
)
def test_without_an_index_it_says_so_in_one_line(tmp_path: Path, stdout: str, stderr: str, reason: str) -> None:
    done = audit(tmp_path, stdout, stderr, 1)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"The index of advisories could not be asked, so nothing is known: {reason}")
    assert done.stderr.count("\n") == 1


def test_make_audit_asks_about_the_lock_file() -> None:
    done = subprocess.run(["make", "--dry-run", "audit"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert "scripts/audit.py .venv-audit/bin/pip-audit requirements.lock" in done.stdout
