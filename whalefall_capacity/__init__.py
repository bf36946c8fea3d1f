"""Capacity pipeline for a fleet of MySQL, MariaDB and PostgreSQL servers, built on Dagster."""

import gc

# How many objects more than at its last look there are before Python looks for cycles. At its own 700 that took a sixth
# of the time in which each process of ours loads its code, and of the processor's time of a large collection; at many
# more, each look takes longer.
gc.set_threshold(10_000)
