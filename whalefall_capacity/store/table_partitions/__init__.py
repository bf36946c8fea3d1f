"""The table partitions of the partitioned tables: made, read from the catalog, and the ledger of those retired.

Below the aggregations, which need table partitions before they write; what decides that one goes is `maintenance`.
"""
