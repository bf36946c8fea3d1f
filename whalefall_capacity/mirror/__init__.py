"""Task runs mirror Dagster's runs: the plan of a run, its items, its end, and the reconciliation of both.

Reads Dagster and writes through `store.task_runs`; the resource that steps use is in `resources`.
"""
