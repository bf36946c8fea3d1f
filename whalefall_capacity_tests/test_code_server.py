"""The code server belongs to us alone: it has a socket that no other account reaches, however long the path."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest

from whalefall_capacity.code_server import held_socket
from whalefall_capacity.errors import StoreError, WhalefallError
from whalefall_capacity_tests.other_account import UID, as_another_account, connect, end, names_in, needs_root, read
from whalefall_capacity_tests.processes import Deployment, deployment, wait_for

LOCATION = "query { workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"


def private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True)
    return folder


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_socket_lies_in_dagsters_home(tmp_path: Path) -> None:
    home = private(tmp_path / "dagster")
    with held_socket(home) as path:
        assert path == home / "code.sock"
    assert home.exists()


@pytest.mark.parametrize("name", ["n" * 120, "a b", "50%", "a#b", "\u6570\u636e"])
def test_where_the_path_cannot_be_that_of_a_socket_it_lies_in_a_folder_of_ours(tmp_path: Path, name: str) -> None:
    home = private(tmp_path / name)
    with held_socket(home) as path, closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        assert mode_of(path.parent) == 0o700
        assert path.parent.stat().st_uid == os.geteuid()
    assert not path.parent.exists()


def test_a_home_that_others_may_enter_is_no_place_for_the_socket(tmp_path: Path) -> None:
    home = private(tmp_path / "dagster")
    home.chmod(0o755)
    with held_socket(home) as path:
        assert mode_of(path.parent) == 0o700
    assert mode_of(home) == 0o755


@needs_root
def test_a_folder_that_somebody_else_made_in_its_place_is_refused(tmp_path: Path) -> None:
    home = private(tmp_path / ("n" * 120))
    with held_socket(home) as path:
        folder = path.parent
    folder.mkdir(mode=0o700)
    os.chown(folder, UID, UID)
    try:
        with pytest.raises(StoreError, match="must be a folder of mode 0700 that belongs to user 0"), held_socket(home):
            pass
    finally:
        folder.rmdir()


def test_two_code_servers_never_share_a_socket(tmp_path: Path) -> None:
    home = private(tmp_path / "dagster")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(home / "code.sock"))
        listener.listen()
        with (
            pytest.raises(WhalefallError, match="stop the `whalefall-capacity up`"),
            held_socket(home),
        ):
            pass
    # The one that was killed has left its file.
    with held_socket(home) as path:
        assert path.exists()
    assert not path.exists()


@pytest.fixture(scope="module", params=["short", "long"])
def up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """`up` with a home of an ordinary path, and with one of 150 characters, in folders that everybody may enter."""
    folder = tmp_path_factory.mktemp("up")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    home = folder / ("n" * (149 - len(str(folder))) if request.param == "long" else "home")
    with deployment(["up"], {"WHALEFALL_HOME": str(home)}, folder / "up.log") as running:
        wait_for(running.console_answers, "answer of the console")
        yield running


def family(up: Deployment) -> list[psutil.Process]:
    leader = psutil.Process(up.process.pid)
    return [leader, *leader.children(recursive=True)]


def home_of(up: Deployment) -> Path:
    (code_server,) = up.services("api grpc")
    return Path(code_server.environ()["WHALEFALL_HOME"])


def sockets_of(up: Deployment) -> set[str]:
    """Return the paths of the Unix sockets that the processes of `up` listen on."""
    found = {sock.laddr for process in family(up) for sock in process.net_connections("unix")}
    return {str(path) for path in found if path and not str(path).startswith("@")}


@pytest.mark.slow
def test_only_the_ui_and_the_console_listen_on_tcp(up: Deployment) -> None:
    listening = {
        f"http://{sock.laddr.ip}:{sock.laddr.port}"
        for process in family(up)
        for sock in process.net_connections("inet")
        if sock.status == psutil.CONN_LISTEN
    }
    assert listening == {up.url, up.console_url}


@pytest.mark.slow
@needs_root
def test_another_account_reaches_no_socket_and_no_file(up: Deployment) -> None:
    paths = sockets_of(up)
    assert [Path(path).name for path in paths] == ["code.sock"]
    for path in paths:
        assert connect(path) == "connected"
        assert as_another_account(partial(connect, path)) == "PermissionError"
    home = home_of(up)
    assert "dagster" in names_in(home)
    for folder in (home, home / "dagster", home / "postgres"):
        assert as_another_account(partial(names_in, folder)) == "PermissionError"


@pytest.mark.slow
@needs_root
def test_another_account_reads_no_environment_and_ends_no_process(up: Deployment) -> None:
    for process in family(up):
        environment = Path(f"/proc/{process.pid}/environ")
        assert "WHALEFALL_HOME" in read(environment)
        assert as_another_account(partial(read, environment)) == "PermissionError"
        assert as_another_account(partial(end, process.pid)) == "PermissionError"
    assert up.serves()


@pytest.mark.slow
def test_a_code_server_that_is_killed_is_found_again_on_the_same_socket(up: Deployment) -> None:
    (killed,) = up.services("api grpc")
    killed.kill()
    wait_for(lambda: up.services("api grpc") not in ([], [killed]), "new code server")

    def is_loaded() -> bool:
        (location,) = up.graphql(LOCATION)["workspaceOrError"]["locationEntries"]
        return bool(location["locationOrLoadError"]["__typename"] == "RepositoryLocation")

    wait_for(is_loaded, "code location in the UI")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a process that is killed")
@pytest.mark.parametrize("up", ["long"], indirect=True)
def test_the_next_up_starts_where_one_was_killed(up: Deployment, tmp_path: Path) -> None:
    """Comes last of all that share the deployment, because it ends it."""
    home, orphans = home_of(up), family(up)[1:]
    assert len(orphans) >= 4
    up.process.kill()
    wait_for(lambda: not any(process.is_running() for process in orphans), "end of what it started")
    with deployment(["up"], {"WHALEFALL_HOME": str(home)}, tmp_path / "next.log") as following:
        assert following.serves()
