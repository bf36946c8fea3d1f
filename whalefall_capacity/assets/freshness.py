"""Freshness policies: the age at which the latest materialization of an asset is stale."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

# Every day brings stats, and each of its four windows is calculated again with them. Three hours are for a fleet that
# takes longer than the day before; when a whole day was left out, it is a failure.
DAILY_DATA = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=27), fail_window=timedelta(hours=51))
