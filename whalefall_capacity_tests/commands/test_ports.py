"""A port that cannot be listened on is said before anything is started, by the name of its setting."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from whalefall_capacity.commands.ports import console_url
from whalefall_capacity.settings import Settings, build_settings
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.processes import free_port


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of 127.0.0.1 on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("command", [["up"], ["demo"], ["demo", "--verbose"]])
@pytest.mark.parametrize("name", ["WEBSERVER_PORT", "CONSOLE_PORT"])
def test_a_port_that_is_taken_is_one_message_and_nothing_is_started(
    whalefall: CommandLine, settings: Settings, taken: int, command: list[str], name: str
) -> None:
    os.environ |= {"WHALEFALL_WEBSERVER_PORT": str(free_port()), "WHALEFALL_CONSOLE_PORT": str(free_port())}
    os.environ[f"WHALEFALL_{name}"] = str(taken)
    done = whalefall(*command)
    lines = [line for line in done.err.splitlines() if "not installed" not in line]
    assert (done.status, lines) == (
        1,
        [
            f"error: WHALEFALL_{name}: {taken}: cannot listen on port {taken} of 127.0.0.1 (Address already in use); "
            "choose a free port"
        ],
    )
    assert not settings.home.exists()


def test_both_ports_are_named_when_both_are_taken(whalefall: CommandLine, taken: int) -> None:
    os.environ |= {"WHALEFALL_WEBSERVER_PORT": str(taken), "WHALEFALL_CONSOLE_PORT": str(taken)}
    done = whalefall("up")
    assert done.status == 1
    assert done.err.count(f": cannot listen on port {taken} of 127.0.0.1 (") == 2


def test_two_programs_cannot_have_one_port(whalefall: CommandLine) -> None:
    port = free_port()
    os.environ |= {"WHALEFALL_WEBSERVER_PORT": str(port), "WHALEFALL_CONSOLE_PORT": str(port)}
    done = whalefall("up")
    assert done.status == 1
    assert done.err.startswith(f"error: WHALEFALL_CONSOLE_PORT: {port}: cannot listen on port {port} of 127.0.0.1")


def test_the_port_of_the_command_line_is_the_one_that_counts(
    whalefall: CommandLine, settings: Settings, taken: int, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    for command in (["serve"], ["ui", "--workspace", str(workspace)]):
        done = whalefall(*command, "--port", str(taken))
        assert done.status == 1
        assert f"cannot listen on port {taken} of 127.0.0.1 (Address already in use)" in done.err
    assert not settings.home.exists()


def test_a_host_that_is_not_of_this_machine_is_said(whalefall: CommandLine) -> None:
    # Reserved for documentation: no machine has it.
    os.environ |= {"WHALEFALL_WEBSERVER_PORT": str(free_port()), "WHALEFALL_CONSOLE_HOST": "192.0.2.1"}
    done = whalefall("up")
    assert done.status == 1
    assert "WHALEFALL_CONSOLE_PORT: 8000: cannot listen on port 8000 of 192.0.2.1 (Cannot assign" in done.err


@pytest.mark.parametrize("host", ["http://db.example", "a..b", "no such host"])
def test_a_host_that_there_is_not_is_said(whalefall: CommandLine, host: str) -> None:
    os.environ |= {"WHALEFALL_WEBSERVER_PORT": str(free_port()), "WHALEFALL_CONSOLE_HOST": host}
    done = whalefall("serve")
    message = f"error: WHALEFALL_CONSOLE_HOST: {host}: is neither an address nor the name of a host\n"
    assert (done.status, done.err) == (1, message)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),  # noqa: S104
        ("::", "http://127.0.0.1:8080"),
        ("10.0.0.5", "http://10.0.0.5:8080"),
        ("2001:db8::1", "http://[2001:db8::1]:8080"),
    ],
)
def test_the_url_of_the_console_is_where_it_listens(host: str, url: str) -> None:
    assert console_url(build_settings(console_host=host, console_port=8080)) == url
