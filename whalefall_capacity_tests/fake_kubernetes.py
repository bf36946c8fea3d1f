"""A Kubernetes API for the tests, of which Dagster needs little: Jobs are processes of this machine.

What the Job says of its container is done: the arguments, the variables, and those of secrets. The image is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from whalefall_capacity_tests.processes import PATIENCE_SECONDS
from whalefall_capacity_tests.units import BIN


@dataclass
class Cluster:
    """The Jobs that were created, and the process of each by the Job's name; *secrets* are variables by name."""

    secrets: Mapping[str, Mapping[str, str]]
    folder: Path
    jobs: list[dict[str, Any]] = field(default_factory=list)
    pods: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        self.jobs.append(job)
        name = job["metadata"]["name"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        variables = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        for source in container.get("envFrom", []):
            variables |= self.secrets[source["secretRef"]["name"]]
        path = os.pathsep.join([str(BIN), os.environ["PATH"]])
        with (self.folder / f"{name}.log").open("wb") as log:
            self.pods[name] = subprocess.Popen(
                container["args"],
                env={**variables, "PATH": path, "HOME": str(self.folder)},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return job

    def status(self, name: str) -> dict[str, Any] | None:
        if name not in self.pods:
            return None
        status = self.pods[name].poll()
        counts = {"active": 1} if status is None else {"succeeded": 1} if status == 0 else {"failed": 1}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "status": counts}

    def output(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.log"))


@contextmanager
def fake_kubernetes(folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Cluster, Path]]:
    """Hold a cluster, and yield it with a kubeconfig that leads to it."""
    cluster = Cluster(secrets, folder)

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._answer(201, cluster.create(json.loads(body)))

        def do_GET(self) -> None:
            found = cluster.status(self.path.removesuffix("/status").rpartition("/")[2])
            self._answer(404 if found is None else 200, found or {"kind": "Status", "code": 404})

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield cluster, _kubeconfig(folder, server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
            for pod in cluster.pods.values():
                pod.kill()
                pod.wait(PATIENCE_SECONDS)


def _kubeconfig(folder: Path, port: int) -> Path:
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "nobody", "user": {"token": "none"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path
