"""`python -m whalefall_capacity`: the command line."""

from __future__ import annotations

from whalefall_capacity.cli import main

if __name__ == "__main__":
    main()
