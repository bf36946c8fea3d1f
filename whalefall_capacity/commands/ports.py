"""Ports on which a command will listen, checked before it starts anything that would have to be undone."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass

from whalefall_capacity.collection.sizes import address
from whalefall_capacity.errors import SettingsError
from whalefall_capacity.settings import EVERY_ADDRESS, PREFIX, Settings

UI_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Listener:
    """An address to listen on, and the variable that names its port."""

    variable: str
    host: str
    port: int


def ui_listener(settings: Settings, port: int | None = None) -> Listener:
    """Return where the Dagster UI listens; *port* wins over the setting."""
    return Listener(f"{PREFIX}WEBSERVER_PORT", UI_HOST, port or settings.webserver_port)


def console_listener(settings: Settings, port: int | None = None) -> Listener:
    """Return where the console listens; *port* wins over the setting."""
    return Listener(f"{PREFIX}CONSOLE_PORT", settings.console_host, port or settings.console_port)


def console_url(settings: Settings) -> str:
    """Return where a browser on this machine finds the console."""
    host = UI_HOST if settings.console_host in EVERY_ADDRESS else settings.console_host
    return f"http://{address(host, settings.console_port)}"


def require_free_ports(*listeners: Listener) -> None:
    """Raise SettingsError if a port is in use, two listeners share one, or there is no such host."""
    problems = []
    with ExitStack() as held:
        for listener in listeners:
            try:
                _listen(listener, held)
            except (socket.gaierror, UnicodeError):
                problems.append(f"{PREFIX}CONSOLE_HOST: {listener.host}: is neither an address nor the name of a host")
            except OSError as error:
                problems.append(
                    f"{listener.variable}: {listener.port}: cannot listen on port {listener.port} of {listener.host} "
                    f"({error.strerror}); choose a free port"
                )
    if problems:
        raise SettingsError("\n".join(problems))


def _listen(listener: Listener, held: ExitStack) -> None:
    family, kind, _, _, address = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM)[0]
    server = held.enter_context(socket.socket(family, kind))
    # As the servers do: closing connections of a previous process are no obstacle.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(address)
    server.listen()
