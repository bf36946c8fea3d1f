"""Everything that talks to the PostgreSQL store; knows nothing of Dagster."""
