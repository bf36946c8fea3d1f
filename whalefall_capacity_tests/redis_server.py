"""A Redis server for the tests: the one of the distribution, on a port of 127.0.0.1, with a password."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from whalefall_capacity_tests.processes import PATIENCE_SECONDS, free_port, wait_for

PASSWORD = "Tr0ub4dor"
IN_MEMORY = ("--save", "", "--appendonly", "no")


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Hold a server that keeps everything in memory, and yield its URL."""
    # The package with the tools has the server, which is the same program under another name, and starts no service.
    program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    assert program is not None, "there is no Redis; scripts/system-packages redis installs it"
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--requirepass", PASSWORD, *IN_MEMORY]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(["redis-server", *options], executable=program, stdout=log, stderr=log)
    client = Redis(port=port, password=PASSWORD)

    def answers() -> bool:
        assert process.poll() is None, (folder / "redis.log").read_text()
        try:
            return bool(client.ping())
        except RedisError:
            return False

    try:
        wait_for(answers, "answer of Redis")
        yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    finally:
        client.close()
        process.terminate()
        process.wait(PATIENCE_SECONDS)
