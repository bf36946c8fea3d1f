"""The servers of the fleet as external assets: the roots of the lineage graph."""

from __future__ import annotations

import dagster as dg

from whalefall_capacity.collection.sizes import ServerEngine

KINDS = {ServerEngine.POSTGRESQL: "postgres", ServerEngine.MYSQL: "mysql", ServerEngine.MARIADB: "mariadb"}

SERVERS = [
    dg.AssetSpec(
        dg.AssetKey(["servers", engine.value]),
        group_name="fleet",
        kinds={KINDS[engine]},
        owners=["team:dba"],
        tags={"engine": engine.value},
        description=f"The {engine.value} servers of the fleet, as registered with `whalefall-capacity fleet apply`. "
        "docs/servers.md",
    )
    for engine in ServerEngine
]
