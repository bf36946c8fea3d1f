"""`python -m whalefall_capacity.console`: the console as a program to supervise, on a store that is there already."""

from __future__ import annotations

from whalefall_capacity.console.server import serve_console
from whalefall_capacity.settings import load_settings

if __name__ == "__main__":
    serve_console(load_settings(), load_settings().console_port)
