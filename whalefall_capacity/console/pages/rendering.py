"""Rendering of pages: the context of a request (caller, language, theme) and the templates."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, get_origin
from urllib.parse import urlencode

from fastapi import Depends, Request
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from whalefall_capacity.collection.sizes import address
from whalefall_capacity.console.http.cookies import cookie_name, set_cookie
from whalefall_capacity.console.http.envelope import ApiError, MessageCode, invalid
from whalefall_capacity.console.http.faults import fault_of
from whalefall_capacity.console.http.principals import Principal
from whalefall_capacity.console.http.security import principal_of
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.console.pages.choices import boxes
from whalefall_capacity.console.pages.formats import (
    NOT_KNOWN,
    binary_size,
    duration,
    moment,
    signed_percent,
    signed_size,
    window_label,
)
from whalefall_capacity.console.pages.list_cells import (
    database_rows,
    database_url,
    instance_rows,
    size_cells,
    size_status,
)
from whalefall_capacity.console.pages.static_files import static_url
from whalefall_capacity.console.pages.translations import LANGUAGES, catalogue, preferred, said
from whalefall_capacity.printable import printable_lines
from whalefall_capacity.store.access import Role
from whalefall_capacity.store.task_runs.read import TaskRun
from whalefall_capacity.tasks import INSIGHT

THEMES = ("auto", "light", "dark")
# What the URL of a page may choose for all that follow: the parameter, its cookie, and the choices.
REMEMBERED: Mapping[str, tuple[str, Collection[str]]] = {
    "lang": ("whalefall_language", LANGUAGES),
    "theme": ("whalefall_theme", THEMES),
}
ONE_YEAR_SECONDS = 31_536_000
WORDS_OF_SCRIPTS = ("current.", "error.", "status.", "runs.cancel", "partitions.")


@dataclass(frozen=True)
class PageContext:
    """A request as its page is rendered: the caller, the language and the theme."""

    request: Request
    principal: Principal | None
    language: str
    theme: str

    @property
    def console(self) -> Console:
        console: Console = self.request.app.state.console
        return console

    @property
    def prefix(self) -> str:
        """The path below which these pages are served."""
        return prefix_of(self.request)

    def may(self, role: Role) -> bool:
        """Tell whether the caller may do what *role* allows."""
        return self.principal is not None and self.principal.role.includes(role)

    def translate(self, key: str, **values: object) -> str:
        return catalogue(self.language)[key].format(**values)

    def said(self, text: str) -> str:
        """Return a sentence of ours in the reader's language, and the text of others as it is."""
        return said(text, self.language)

    def here(self, **changes: str | None) -> str:
        """Return the URL of this page with some parameters changed; None takes a parameter away."""
        return self.url(self.request.url.path, **changes)

    def url(self, path: str, **changes: str | None) -> str:
        """Return the URL of *path* with the parameters of this page, and *changes* to them."""
        kept = [(name, value) for name, value in self.request.query_params.multi_items() if name not in changes]
        parameters = kept + [(name, value) for name, value in changes.items() if value is not None]
        return f"{path}?{urlencode(parameters)}" if parameters else path


def prefix_of(request: Request) -> str:
    """Return the path below which the console's pages are served: none, or that of the login of the Dagster UI."""
    prefix: str = request.scope.get("root_path", "")
    return prefix


def page_context(request: Request) -> PageContext:
    """Return the context of a request; reads the store to find who sends it."""
    return _context(request, principal_of(request.app.state.console, request))


def anonymous_context(request: Request) -> PageContext:
    """Return the context of a request without asking who sends it."""
    return _context(request, None)


def reader_context(request: Request) -> PageContext:
    """Return the context of somebody who has logged in. Raises ApiError, whose page leads anybody else to the login."""
    context = page_context(request)
    if context.principal is None:
        raise ApiError(MessageCode.AUTHENTICATION_REQUIRED, "log in first")
    return context


Reader = Annotated[PageContext, Depends(reader_context)]


def view_of(request: Request, model: type[Any]) -> Any:
    """Return the state that the URL says; an empty field of a form says nothing."""
    said = [(name, value) for name, value in request.query_params.multi_items() if value != ""]
    several = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}
    values: dict[str, Any] = {name: value for name, value in said if name not in several}
    values |= {name: [value for other, value in said if other == name] for name in several}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise invalid(str(problem["loc"][0]), fault_of(problem)) from error


def to_login(request: Request) -> Response:
    """Lead whoever is not logged in to the login, and from there back here."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{prefix_of(request)}/login?{urlencode({'next': here})}", 303)


def render(context: PageContext, template: str, **values: Any) -> Response:
    """Return the page that *template* makes of *values*."""
    words = catalogue(context.language)
    content = (
        _environment()
        .get_template(template)
        .render(
            context=context,
            request=context.request,
            principal=context.principal,
            is_admin=context.may(Role.ADMIN),
            is_operator=context.may(Role.OPERATOR),
            t=context.translate,
            said=context.said,
            static=lambda name: context.prefix + static_url(name),
            words=words,
            languages=LANGUAGES,
            themes=THEMES,
            zone=context.console.settings.zone,
            script_words=_script_words(context.language),
            **values,
        )
    )
    answer = HTMLResponse(content)
    # A choice in the URL is remembered for the pages that do not say.
    for parameter, (cookie, allowed) in REMEMBERED.items():
        wanted = context.request.query_params.get(parameter, "")
        if wanted in allowed:
            set_cookie(answer, context.request, cookie, wanted, ONE_YEAR_SECONDS)
    return answer


def json_in_page(content: object) -> Markup:
    """Return JSON that can stand in a page: nothing in it ends the element that it is in."""
    escaped = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(escaped.replace("&", "\\u0026").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704


@lru_cache(maxsize=len(LANGUAGES))
def _script_words(language: str) -> Markup:
    """Return the words that scripts show."""
    words = catalogue(language)
    return json_in_page({key: word for key, word in words.items() if key.startswith(WORDS_OF_SCRIPTS)})


def _context(request: Request, principal: Principal | None) -> PageContext:
    language = _choice(request, "lang") or preferred(request.headers.get("accept-language", ""))
    return PageContext(request, principal, language, _choice(request, "theme") or THEMES[0])


def _choice(request: Request, parameter: str) -> str | None:
    """Return what the URL says, or what it said before; None for what is no choice."""
    cookie, allowed = REMEMBERED[parameter]
    wanted = (request.query_params.get(parameter), request.cookies.get(cookie_name(request, cookie)))
    return next((choice for choice in wanted if choice in allowed), None)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("whalefall_capacity.console.pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "as_it_is": escape,
        "size": binary_size,
        "percent_change": signed_percent,
        "change": signed_size,
        "moment": moment,
        "duration": duration,
        "boxes": boxes,
    }
    environment.tests["open"] = lambda run: not run.status.is_terminal
    environment.globals |= {
        "metrics_of": _metrics_of,
        "figure": _figure,
        "figure_name": _figure_name,
        "inputs_of": _inputs_of,
        "task_label": _task_label,
        "window_label": window_label,
        "urlencode": urlencode,
        "database_url": database_url,
        "database_rows": database_rows,
        "instance_rows": instance_rows,
        "size_cells": size_cells,
        "size_status": size_status,
        "address": address,
    }
    return environment


def _shown(value: object) -> object:
    """Return *value* as a page shows it; what is markup already was made by us, or is the value of a field."""
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _task_label(words: Mapping[str, str], run: TaskRun) -> str:
    """Return the name of a task in the words of the reader, with its instances, its period and its days."""
    # Runs that forecast have no task of their own.
    key = "insight" if run.task_name.startswith(INSIGHT.name) else run.task_key
    name = words.get(f"task.{key}")
    if name is None:
        return run.task_name
    common = (run.summary_json or {}).get("common", {})
    inputs, scope = common.get("inputs", {}), common.get("scope", {})
    parts = [name]
    if (chosen := scope.get("target", {}).get("instance_ids")) is not None:
        parts.append(words["scope.instances"].format(count=len(chosen)))
    if (period_type := scope.get("target", {}).get("period_type")) is not None:
        parts.append(words.get(f"period.{period_type}", period_type))
    if (asked := inputs.get("scope")) is not None:
        parts.append(words.get(f"scope.{asked}", asked))
    first = inputs.get("first") or (scope.get("time") or {}).get("date")
    last = inputs.get("last") or first
    if first is not None:
        parts.append(first if first == last else f"{first} → {last}")
    return " · ".join(parts)


def _metrics_of(words: Mapping[str, str], item: Any) -> str:
    """Return the figures of an item in one line."""
    figures = [(name, _figure(words, name, value)) for name, value in (item.metrics_json or {}).items()]
    return " · ".join(f"{_figure_name(words, name, name)} {figure}".strip() for name, figure in figures)


def _figure_name(words: Mapping[str, str], name: str, otherwise: str) -> str:
    """Return the name of a figure in the words of the reader."""
    return words.get(f"figure.{name}", otherwise)


def _figure(words: Mapping[str, str], name: str, value: Any) -> str:
    """Return a figure of a run as people read it: sizes in binary units, large numbers in groups."""
    if value is True:
        return ""
    if isinstance(value, int):
        return binary_size(value) if name.rpartition("_")[2] == "bytes" else f"{value:,}"
    return NOT_KNOWN if value is None else words.get(f"outcome.{value}", str(value))


def _inputs_of(words: Mapping[str, str], run: TaskRun) -> list[tuple[str, str]]:
    """Return what a run was asked for, by name; nothing of what it was not."""
    inputs = (run.summary_json or {}).get("common", {}).get("inputs", {})
    return [
        (words.get(f"input.{name}", name), words.get(f"scope.{value}") or words.get(f"period.{value}") or str(value))
        for name, value in sorted(inputs.items())
        if value is not None
    ]
