"""The answers that a forecast can give, and the kinds of anomalies: names alone, no numpy."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, get_args

# Days of history that a forecast looks at; nothing older says anything about the pace of today.
HISTORY_DAYS = 280
# Days until which a disk may be said to become full.
FURTHEST_DAYS = 365
# With fewer measured days nothing is said about a pace.
FEWEST_DAYS = 14
# Days that an instance may go unmeasured and still get a forecast.
STALE_AFTER_DAYS = 3
# The forecasts of so many days ago are compared with what came.
Horizon = Literal[30, 60, 90]
HORIZONS = get_args(Horizon)


class ForecastStatus(StrEnum):
    """The answer for one instance: a range of dates, or why there is none; the first that applies, in this order."""

    NO_LIMIT = "no_limit"
    STALE = "stale"
    FULL = "full"
    TOO_NEW = "too_new"
    NOT_WITHIN_A_YEAR = "not_within_a_year"
    NOT_BEFORE = "not_before"
    DATED = "dated"


class Urgency(StrEnum):
    """Urgency of a disk that is full or will be: how soon somebody has to act."""

    FULL = "full"
    WITHIN_A_WEEK = "within_a_week"
    WITHIN_A_MONTH = "within_a_month"


# Days until a disk is expected to be full, of each urgency.
URGENT_DAYS = {Urgency.WITHIN_A_WEEK: 7, Urgency.WITHIN_A_MONTH: 30}


class AnomalyKind(StrEnum):
    """Kind of anomaly of a database on a day."""

    JUMP = "jump"
    DROP = "drop"
    STALL = "stall"
