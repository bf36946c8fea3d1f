"""The assets, their checks, and the metadata that Dagster shows for them."""

import warnings

import dagster as dg

# Backfill policies, and mappings to days that do not exist yet, are beta in Dagster; this project is built on them.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
