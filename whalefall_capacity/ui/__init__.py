"""The Dagster UI, behind a guard against pages of other origins, and a login where the settings ask for one."""
