"""Everything that an error would show to whoever prints or logs it."""

from __future__ import annotations

import traceback


def all_that_it_carries(error: BaseException) -> str:
    """Return the text, arguments and traceback of *error* and of every error that it was raised from or beside."""
    parts = []
    pending: list[BaseException | None] = [error]
    while pending:
        if (current := pending.pop()) is not None:
            parts += [str(current), repr(current), repr(current.args), *traceback.format_exception(current)]
            pending += [current.__cause__, current.__context__]
    return "\n".join(parts)
