"""The HTTP API and the pages: everything a browser or a script sees of capacity, task runs and table partitions."""
