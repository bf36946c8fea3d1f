"""Retirement of table partitions: planned, sealed, archived, detached, dropped, restored; and their health.

The one room of the store that removes sizes. It stands above the aggregations, whose windows it seals.
"""
