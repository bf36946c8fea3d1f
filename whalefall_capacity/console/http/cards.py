"""The cards of a selection, which many ask for and which change when something is measured or calculated."""

from __future__ import annotations

from whalefall_capacity.console.http.state import Console
from whalefall_capacity.store.aggregations.basis import windows_basis
from whalefall_capacity.store.aggregations.selection import Selection
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.aggregations.summaries import Summary, summary


def cards(console: Console, level: Level, selection: Selection) -> Summary:
    """Return the summary of *selection*."""
    return console.summaries.get(
        (level, repr(selection)),
        windows_basis(console.reading, selection),
        lambda: summary(console.reading, level, selection),
    )
