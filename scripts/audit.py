"""Look every pinned dependency up in an index of advisories: `audit.py PIP_AUDIT LOCK_FILE`.

pip-audit says "no known vulnerabilities" also when the index knows none of the packages, as a mirror does that has no
advisories: here that is a failure. Exit status: 0 all were looked up and are well, 1 some are vulnerable, 2 not known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

VULNERABLE, NOT_KNOWN = 1, 2


def main(program: str, lock_file: str) -> int:
    """Run pip-audit and print what came of it."""
    # The file is complete and hashed: nothing has to be resolved or downloaded.
    options = ("--disable-pip", "--require-hashes", "--requirement", lock_file, "--format", "json")
    done = subprocess.run([program, *options, "--progress-spinner", "off"], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError, TypeError):
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print_error(f"The index of advisories could not be asked, so nothing is known: {reason}")
        return NOT_KNOWN
    return report(packages)


def report(packages: list[dict[str, Any]]) -> int:
    """Print what is vulnerable and what was not looked up."""
    unknown = [package for package in packages if "skip_reason" in package]
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            print_error(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    if unknown:
        names = ", ".join(package["name"] for package in unknown[:5])
        print_error(
            f"The index of advisories does not know {len(unknown)} of {len(packages)} packages ({names}...), so "
            "nothing is known about them: run this where https://pypi.org is reachable"
        )
    if vulnerable:
        return VULNERABLE
    if unknown:
        return NOT_KNOWN
    sys.stdout.write(f"no known vulnerability in {len(packages)} packages\n")
    return 0


def print_error(line: str) -> None:
    """Print a line to stderr."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
