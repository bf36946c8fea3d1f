"""PostgreSQL itself: connections, COPY, locks, the schema with its migrations, the embedded server.

What the tables mean is told in the rooms above; no statement about sizes, aggregations or task runs lies here.
"""
