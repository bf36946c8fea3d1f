"""The Dagster UI behind its guard and its login."""
