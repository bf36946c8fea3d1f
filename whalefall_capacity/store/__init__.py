"""Everything that talks to the PostgreSQL store: one room a subject, `postgres` the lowest, `maintenance` the highest.

Nothing in here knows of Dagster, and nothing outside writes SQL for the store.
"""
