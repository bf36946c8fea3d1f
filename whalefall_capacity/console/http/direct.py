"""Requests to the Dagster webserver, which belongs to the console."""

from __future__ import annotations

from collections.abc import Mapping

# For `requests`: none of the proxies of the environment, which are for the world outside. They would get to know the
# session of whoever asks, and cannot find a webserver on this machine.
WITHOUT_PROXY: Mapping[str, str] = {"no_proxy": "*"}
