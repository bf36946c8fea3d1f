"""The bridge: what the Dagster layer uses of the store and of the fleet."""
