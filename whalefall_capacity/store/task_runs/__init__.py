"""Task runs and their items, which a run centre outside this project reads: written, read, summed up, launched once.

What Dagster says of a run comes in from `mirror`; nothing here asks Dagster.
"""
