"""Alerts: their text, and their delivery. Nothing here knows Dagster or the store."""
