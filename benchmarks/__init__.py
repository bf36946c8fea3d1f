"""Each figure beside its ceiling, from one run: the bare SQL statement, the bare COPY, the bare connect loop."""
