"""The part of an instance's page that says when it is full, and what would be under other conditions."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict

from whalefall_capacity.console.http.envelope import ApiError
from whalefall_capacity.console.http.forecasts import newest_forecast
from whalefall_capacity.console.http.what_if import Altered, Answer, WhatIf, altered_forecast
from whalefall_capacity.console.pages.rendering import PageContext, view_of
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.insight.read import CapacityForecast


class WhatIfView(WhatIf):
    """The conditions that the URL of the page says."""

    model_config = ConfigDict(extra="ignore")


@dataclass(frozen=True)
class OutlookSection:
    """The newest forecast, and the *altered* one: the same where no other conditions are asked about."""

    forecast: CapacityForecast | None
    fields: list[tuple[str, str]]
    altered: Altered | None = None
    problem: str | None = None

    @property
    def asked(self) -> bool:
        """Tell whether other conditions are asked about, good or bad ones."""
        return bool(self.fields)

    @property
    def answer(self) -> Answer | None:
        """The forecast under other conditions; None when there are none."""
        return self.altered.answer() if self.altered is not None and self.asked else None

    @property
    def dropped(self) -> list[str]:
        return [value for name, value in self.fields if name == "if_dropped"]

    def typed(self, name: str) -> str:
        """Return what stands in a field of the form."""
        return next((value for field, value in self.fields if field == name), "")


def outlook_section(context: PageContext, instance: str) -> OutlookSection:
    """Return the forecast of an instance under the conditions of the URL; what is wrong with them is said."""
    forecast = newest_forecast(context.console, instance)
    given = context.request.query_params.multi_items()
    fields = [(name, value) for name, value in given if name in WhatIf.model_fields and value != ""]
    if forecast is None:
        return OutlookSection(None, fields)
    try:
        altered = altered_forecast(context.console, forecast, view_of(context.request, WhatIfView))
    except ApiError as error:
        ((field, message),) = (error.errors or {"": error.message}).items()
        fault = message if isinstance(message, Sentence) else Sentence(message)
        told = Sentence("{field}: {fault}", field=context.translate(LABELS[field]), fault=fault)
        return OutlookSection(forecast, fields, problem=context.said(told))
    return OutlookSection(forecast, fields, altered)


LABELS = {
    "if_limit": "what_if.limit",
    "if_import": "what_if.import",
    "if_import_on": "what_if.import_on",
    "if_dropped": "what_if.dropped",
    "if_pace": "what_if.pace",
}
