"""Everything that talks to the servers of the fleet; knows nothing of Dagster or of the store."""
