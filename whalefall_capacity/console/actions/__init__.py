"""Actions behind the buttons: the aggregation of the current period and the maintenance, as runs of Dagster.

Dagster is asked over GraphQL; nothing of it is imported.
"""
