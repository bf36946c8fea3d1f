"""Dagster resources: the store, the fleet and task runs, as assets and ops use them."""
