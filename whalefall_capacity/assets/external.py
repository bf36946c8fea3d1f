"""The servers of the fleet as external assets: the roots of the lineage graph."""

from __future__ import annotations

import dagster as dg

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.engine_catalog import known_engines

# As Dagster names them, where it does not do so like we; it has an icon for each.
KINDS: dict[str, str] = {
    ServerEngine.POSTGRESQL: "postgres",
    ServerEngine.MYSQL: "mysql",
    ServerEngine.MARIADB: "mariadb",
}

SERVERS = [
    dg.AssetSpec(
        dg.AssetKey(["servers", engine]),
        group_name="fleet",
        kinds={KINDS.get(engine, engine)},
        owners=["team:dba"],
        tags={"engine": engine},
        description=f"The {engine} servers of the fleet, as registered with `whalefall-capacity fleet apply`. "
        "docs/servers.md",
    )
    for engine in known_engines()
]
