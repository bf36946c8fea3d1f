"""`python -m benchmarks [--scale SHARE] [NAME ...]`: prints each benchmark's table; full size is scale 1."""

from __future__ import annotations

import argparse
import importlib

NAMES = (
    "writing",
    "fleet",
    "aggregation",
    "backfill",
    "mirror",
    "archive",
    "idle",
    "latency",
    "console",
    "migration",
    "scale",
    "forecast",
    "forecast_quality",
)


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which; all when none is given")
    parser.add_argument("--scale", type=float, default=1.0, help="size, as a share of the full one")
    arguments = parser.parse_args()
    for name in arguments.names or NAMES:
        importlib.import_module(f"benchmarks.{name}").run(arguments.scale)


if __name__ == "__main__":
    main()
