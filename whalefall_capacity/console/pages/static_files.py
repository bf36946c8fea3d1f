"""Scripts and styles, served from here: no other host is asked for anything.

A URL carries the hash of the content, so that a browser keeps a file for good and still sees every change.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

CACHE_FOREVER = "public, max-age=31536000, immutable"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CHART_LIBRARY = "plotly.min.js"
HASHED_ID = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


@dataclass(frozen=True)
class StaticFile:
    """One file, as it is and compressed."""

    content: bytes
    compressed: bytes
    media_type: str
    version: str


@lru_cache(maxsize=1)
def static_files() -> Mapping[str, StaticFile]:
    """Return every file by name: our own, and the chart library out of its package."""
    own = {entry.name: entry for entry in files("whalefall_capacity.console.pages").joinpath("static").iterdir()}
    library = files("plotly").joinpath("package_data", CHART_LIBRARY)
    return {name: _load(name, entry.read_bytes()) for name, entry in {**own, CHART_LIBRARY: library}.items()}


def static_url(name: str) -> str:
    """Return the URL of a file, with its version."""
    return f"/static/{name}?v={static_files()[name].version}"


@lru_cache(maxsize=1)
def chart_library_style_ids() -> list[str]:
    """Return the ids of the style elements that the chart library would make, against the security policy.

    Where elements with these ids are on the page it leaves them alone; what we need of those styles is in ours.
    """
    source = static_files()[CHART_LIBRARY].content.decode()
    return ["plotly.js-style-global", *sorted(set(HASHED_ID.findall(source)))]


def _load(name: str, content: bytes) -> StaticFile:
    media_type = MEDIA_TYPES[name[name.rindex(".") :]]
    return StaticFile(content, gzip.compress(content, 6, mtime=0), media_type, hashlib.sha256(content).hexdigest()[:16])


async def serve_static(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the files, as the application below /static."""
    request = Request(scope, receive)
    if request.method not in {"GET", "HEAD"}:
        raise HTTPException(405, "Method Not Allowed", {"Allow": "GET, HEAD"})
    file = static_files().get(scope["path"].rpartition("/")[2])
    if file is None:
        raise HTTPException(404, "Not Found")
    headers = {"Vary": "Accept-Encoding"}
    if request.query_params.get("v") == file.version:
        # A page of another version of the program, beside which this one is served for a while, means another content.
        headers["Cache-Control"] = CACHE_FOREVER
    content = file.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        content = file.compressed
        headers["Content-Encoding"] = "gzip"
    await Response(content, headers=headers, media_type=file.media_type)(scope, receive, send)
