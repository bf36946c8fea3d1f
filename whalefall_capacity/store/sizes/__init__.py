"""The daily sizes: what visits brought, what is imported, which day differs from those before.

Rows of windows belong to `aggregations`; who is visited at all is told by the fleet registry.
"""
