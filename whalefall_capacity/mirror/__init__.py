"""Task runs follow Dagster's runs: what a run is about, its items, its end, and the reconciliation of both.

It reads Dagster and writes by `store.task_runs`; the resource that steps use lies in `resources`.
"""
