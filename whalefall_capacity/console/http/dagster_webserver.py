"""Requests to the Dagster webserver, which belongs to the console, and what is in its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import requests

LogIn = Callable[[requests.PreparedRequest], requests.PreparedRequest]
# None of the proxies of the environment, which are for the world outside. They would get to know the session of
# whoever asks, and cannot find a webserver on this machine.
WITHOUT_PROXY: Mapping[str, str] = {"no_proxy": "*"}


def anonymous(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave *request* as it is: nobody asks."""
    return request


def ask_webserver(
    method: str, url: str, wait_seconds: float, log_in: LogIn = anonymous, **content: Any
) -> requests.Response:
    """Return the answer to a request with *content*. Raises requests.RequestException when there is none in time.

    *wait_seconds* is for each wait on the network.
    """
    return requests.request(
        method,
        url,
        # A function: the library would otherwise send what a .netrc says of this host in its place.
        auth=log_in,
        proxies=dict(WITHOUT_PROXY),
        timeout=wait_seconds,
        # A POST would become a GET without its body, and what asks for a login elsewhere is no answer of Dagster's.
        allow_redirects=False,
        **content,
    )


def data_of(answer: requests.Response) -> dict[str, Any] | None:
    """Return the data of an answer; None when it has errors alone. Raises ValueError when Dagster answers otherwise."""
    content = answer.json()
    if isinstance(content, dict) and not content.keys().isdisjoint({"data", "errors"}):
        data = content.get("data")
        if data is None or isinstance(data, dict):
            return data
    raise ValueError
