"""The HTTP API and the pages: everything a browser or a script sees of capacity, task runs and table partitions.

`app` puts the rooms together. No SQL and nothing of Dagster: it reads by `store`, and asks Dagster over HTTP.
"""
