"""What the buttons start: the aggregation of the current period and the maintenance, as runs of Dagster.

Dagster is asked over GraphQL; nothing of it is imported.
"""
