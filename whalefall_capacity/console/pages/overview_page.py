"""The first page: the fleet as a whole, what needs a person, and what runs now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator
from starlette.responses import Response

from whalefall_capacity.console.http.overview import overview
from whalefall_capacity.console.http.principals import credential_of
from whalefall_capacity.console.pages.capacity_pages import number
from whalefall_capacity.console.pages.formats import binary_size
from whalefall_capacity.console.pages.rendering import PageContext, Reader, json_in_page, render, view_of
from whalefall_capacity.console.pages.static_files import chart_library_style_ids
from whalefall_capacity.store.sizes.fleet_totals import DayTotal

Days = Literal[30, 90, 365]
DAYS_CHOICES = get_args(Days)

router = APIRouter()


class OverviewView(BaseModel):
    """The state of the overview."""

    days: Annotated[Days, BeforeValidator(number)] = 90


@router.get("/")
def whole_fleet(context: Reader) -> Response:
    """Show the overview."""
    view: OverviewView = view_of(context.request, OverviewView)
    found = overview(context.console, credential_of(context.request), view.days)
    return render(
        context,
        "overview.html",
        view=view,
        overview=found,
        payload=json_in_page([_chart(context, found.totals)]),
        choices=DAYS_CHOICES,
        style_ids=chart_library_style_ids(),
    )


def _chart(context: PageContext, totals: Sequence[DayTotal]) -> dict[str, object]:
    """Return what the script draws: a gap where nothing was measured, and how much of a day was."""
    texts = [
        context.translate(
            "overview.total_of_day", size=binary_size(one.total_size_bytes), measured=one.measured, servers=one.servers
        )
        for one in totals
    ]
    values = [one.total_size_bytes for one in totals]
    return {
        "metric": "size",
        "unit": "bytes",
        "labels": [one.day.isoformat() for one in totals],
        "in_progress": False,
        "series": [{"name": context.translate("overview.total"), "colour": 0, "values": values, "texts": texts}],
    }
