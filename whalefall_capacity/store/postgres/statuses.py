"""Statuses of task runs and of their items: the one list, of which the store's checks and the API's enums are made."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, get_args


class Status(StrEnum):
    """Status of a task run; an item has all of them but COMPLETED_WITH_ERRORS."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self not in (Status.PENDING, Status.RUNNING)


# For type checkers too: an item is never COMPLETED_WITH_ERRORS.
ItemStatus = Literal[Status.PENDING, Status.RUNNING, Status.COMPLETED, Status.FAILED, Status.CANCELLED]
ITEM_STATUSES: tuple[Status, ...] = get_args(ItemStatus)
