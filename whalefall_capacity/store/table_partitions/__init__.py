"""The table partitions of the partitioned tables: created, and read from the catalog.

Below the aggregations, which need table partitions before they write; what decides that one goes is `maintenance`.
"""
