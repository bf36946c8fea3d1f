"""The pages, rendered here: login, instances, databases, run centre. What a page shows is in its URL."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from whalefall_capacity.console.charts import METRIC_KEYS, Chart, charts
from whalefall_capacity.console.envelope import ApiError, MessageCode, invalid, not_found
from whalefall_capacity.console.formats import NOT_KNOWN, binary_size, duration, moment, window_label
from whalefall_capacity.console.queries import (
    DEFAULT_PERIODS,
    EARLIEST,
    LATEST,
    Day,
    DbType,
    Name,
    Whole,
    offset_of,
    periods_back,
)
from whalefall_capacity.console.security import (
    CSRF_FIELD,
    LOGIN_COOKIE,
    LOGIN_SECONDS,
    NO_ADMIN,
    SESSION_COOKIE,
    Principal,
    form_of,
    is_same,
    principal_of,
    read_body,
    require_csrf,
    too_large,
)
from whalefall_capacity.console.state import Console
from whalefall_capacity.console.static_files import chart_library_style_ids, static_url
from whalefall_capacity.console.translations import LANGUAGES, catalogue, preferred
from whalefall_capacity.periods import PeriodType, Window, windows_between
from whalefall_capacity.store import capacity, task_runs_read
from whalefall_capacity.store.access import Role, check_password, has_admin
from whalefall_capacity.store.aggregation_statements import Level
from whalefall_capacity.store.capacity import InstanceChoice, Selection
from whalefall_capacity.store.growth import DatabaseGrowth, InstanceGrowth
from whalefall_capacity.store.retirement import make_plan
from whalefall_capacity.store.table_health import read_status
from whalefall_capacity.store.task_runs_read import OPEN_STATUSES, STATUSES, TaskRun

THEMES = ("auto", "light", "dark")
LANGUAGE_COOKIE, THEME_COOKIE = "whalefall_language", "whalefall_theme"
ONE_YEAR_SECONDS = 31_536_000
TOPS = (5, 10, 20)
MOST_PERIODS = 400
RUNS_OF_A_PAGE = 30
ITEMS_OF_A_PAGE = 200
# Spreadsheets take a cell that begins like this for a formula.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
WORDS_OF_SCRIPTS = ("current.", "error.", "status.", "runs.cancel", "partitions.")
LEVELS = {"instances": Level.INSTANCE, "databases": Level.DATABASE}

router = APIRouter()


def _one_of(allowed: Mapping[str, int]) -> Any:
    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return allowed[value]

    return BeforeValidator(check)


class View(BaseModel):
    """The state of a page of capacity: everything that its URL says."""

    db_type: DbType | None = None
    instance_id: Annotated[Whole, Field(ge=1)] | None = None
    database_name: Name | None = None
    period_type: PeriodType = PeriodType.DAILY
    periods: Annotated[Whole, Field(ge=1, le=MOST_PERIODS)] | None = None
    start_date: Day | None = None
    end_date: Day | None = None
    top: Annotated[int, _one_of({str(top): top for top in TOPS})] = TOPS[0]
    chart: Literal["line", "bar"] = "line"

    @property
    def shown_periods(self) -> int:
        return self.periods or DEFAULT_PERIODS[self.period_type]

    def days(self, today: date) -> tuple[date, date]:
        """Return the first and last day that are shown. Raises ApiError when the range is none, or too long."""
        last = min(max(self.end_date or today, EARLIEST), LATEST)
        if self.start_date is None:
            return max(periods_back(last, self.period_type, self.shown_periods), EARLIEST), last
        if self.start_date > last:
            raise invalid("start_date", f"{self.start_date} lies after end_date {last}")
        return max(self.start_date, EARLIEST), last

    def windows(self, today: date) -> list[Window]:
        """Return the windows that are shown. Raises ApiError when they are too many."""
        first, last = self.days(today)
        if (last - first).days > MOST_PERIODS * 95:
            raise invalid("start_date", f"at most {MOST_PERIODS} periods can be shown")
        windows = windows_between(first, last, self.period_type)
        if len(windows) > MOST_PERIODS:
            raise invalid("start_date", f"at most {MOST_PERIODS} periods can be shown, these are {len(windows)}")
        return windows

    def parameters(self) -> dict[str, str]:
        """Return what of the state differs from the default, as it stands in the URL."""
        found = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        return {name: str(value) for name, value in found.items()}

    def url(self, path: str, **changes: object) -> str:
        """Return the URL of *path* with this state and *changes* to it; None takes a parameter away."""
        parameters = self.parameters() | {name: str(value) for name, value in changes.items() if value is not None}
        kept = {name: value for name, value in parameters.items() if name not in changes or changes[name] is not None}
        return f"{path}?{urlencode(kept)}" if kept else path


class RunsView(BaseModel):
    """The state of the run centre."""

    status: Literal["pending", "running", "completed", "completed_with_errors", "failed", "cancelled"] | None = None
    page: Annotated[Whole, Field(ge=1)] = 1


@dataclass(frozen=True)
class Scene:
    """What every page needs to be rendered: who looks, in which language and theme."""

    request: Request
    principal: Principal | None
    language: str
    theme: str

    @property
    def console(self) -> Console:
        console: Console = self.request.app.state.console
        return console

    def translate(self, key: str, **values: object) -> str:
        return catalogue(self.language)[key].format(**values)

    def here(self, **changes: str) -> str:
        """Return the URL of this page with some parameters changed."""
        parameters = dict(self.request.query_params) | changes
        return f"{self.request.url.path}?{urlencode(parameters)}"


@router.get("/healthz")
def health() -> Response:
    """Say that the console answers."""
    return Response("ok\n", media_type="text/plain")


@router.get("/")
def home() -> Response:
    """Lead to the instances."""
    return RedirectResponse("/instances", 303)


@router.get("/login")
def login_page(request: Request) -> Response:
    """Show the form, or lead on whoever is logged in."""
    scene = _scene(request)
    if scene.principal is not None:
        return RedirectResponse(_next(request.query_params.get("next", "")), 303)
    return _login_form(scene, request.query_params.get("next", ""))


@router.post("/login")
async def login(request: Request) -> Response:
    """Open a session for a name and a password."""
    if not await read_body(request):
        raise too_large()
    return await run_in_threadpool(_login, request)


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Forget the session."""
    if not await read_body(request):
        raise too_large()
    principal = await run_in_threadpool(principal_of, request)
    if principal is not None:
        require_csrf(request, principal)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION_COOKIE, path="/")
    return answer


@router.get("/instances")
def instances(request: Request) -> Response:
    """Show sizes and growth of instances."""
    return _capacity_page(request, "instances")


@router.get("/databases")
def databases(request: Request) -> Response:
    """Show sizes and growth of databases."""
    return _capacity_page(request, "databases")


@router.get("/instances/{metric}.csv")
def instances_csv(request: Request, metric: str) -> Response:
    """Return the table under a chart of instances."""
    return _csv(request, "instances", metric)


@router.get("/databases/{metric}.csv")
def databases_csv(request: Request, metric: str) -> Response:
    """Return the table under a chart of databases."""
    return _csv(request, "databases", metric)


@router.get("/runs")
def runs(request: Request) -> Response:
    """Show task runs, newest first."""
    scene = _scene(request)
    if scene.principal is None:
        return _to_login(request)
    view = _view(request, RunsView)
    page = task_runs_read.list_task_runs(
        scene.console.reading, RUNS_OF_A_PAGE, offset_of(view.page, RUNS_OF_A_PAGE), view.status
    )
    return _render(
        scene,
        "runs.html",
        runs=page.runs,
        view=view,
        statuses=STATUSES,
        has_next=view.page * RUNS_OF_A_PAGE < page.total,
        live=any(run.status in OPEN_STATUSES for run in page.runs),
    )


@router.get("/runs/{run_id}")
def run(request: Request, run_id: str) -> Response:
    """Show one task run with its items."""
    scene = _scene(request)
    if scene.principal is None:
        return _to_login(request)
    engine = scene.console.reading
    found = None if "\x00" in run_id else task_runs_read.get_task_run(engine, run_id)
    if found is None:
        raise not_found("there is no such task run")
    counts = task_runs_read.count_items(engine, run_id)
    return _render(
        scene,
        "run.html",
        run=found,
        items=task_runs_read.list_items(engine, run_id, ITEMS_OF_A_PAGE),
        item_total=sum(counts.values()),
        item_counts=counts,
        live=found.status in OPEN_STATUSES,
    )


@router.get("/partitions")
def partitions(request: Request) -> Response:
    """Show the table partitions, their health, and what would go."""
    scene = _scene(request)
    if scene.principal is None:
        return _to_login(request)
    console = scene.console
    status = read_status(console.engine, console.settings, console.today())
    return _render(
        scene,
        "partitions.html",
        status=status,
        plan=make_plan(console.engine, console.settings, console.today()),
        sizes={
            table.table: sum(child.bytes for child in status.children if child.table == table.table)
            for table in status.tables
        },
    )


def error_page(request: Request, error: ApiError) -> Response:
    """Return the page that tells of an error; whoever is not logged in is led to the login."""
    if error.status == 401:
        return _to_login(request)
    try:
        scene = _scene(request)
    except Exception:
        scene = Scene(request, None, _language(request), _theme(request))
    answer = _render(scene, "error.html", status=error.status, detail=error.message)
    answer.status_code = error.status
    answer.headers.update(error.headers or {})
    return answer


def _capacity_page(request: Request, page: str) -> Response:
    scene = _scene(request)
    if scene.principal is None:
        return _to_login(request)
    console, level = scene.console, LEVELS[page]
    view = _view(request, View)
    choices = capacity.instance_choices(console.reading)
    view = _without_contradiction(view, choices, level)
    found, selection, windows = _charts(console, view, level)
    return _render(
        scene,
        "capacity.html",
        page=page,
        view=view,
        summary=capacity.summary(console.reading, level, selection),
        charts=found,
        payload=_json([chart.payload() for chart in found]),
        columns=[(i, window_label(w.start, w.period_type)) for i, w in reversed(list(enumerate(windows)))],
        first_day=windows[0].start,
        last_day=selection.last,
        instances=[choice for choice in choices if view.db_type in (None, choice.db_type)],
        databases=capacity.database_choices(console.reading, view.instance_id)
        if view.instance_id is not None and level is Level.DATABASE
        else [],
        db_types=list(DbType),
        period_types=list(PeriodType),
        tops=TOPS,
        style_ids=chart_library_style_ids(),
    )


def _csv(request: Request, page: str, metric_key: str) -> Response:
    scene = _scene(request)
    if scene.principal is None:
        return _to_login(request)
    if metric_key not in METRIC_KEYS:
        raise not_found("there is no such table")
    console, level = scene.console, LEVELS[page]
    view = _without_contradiction(_view(request, View), capacity.instance_choices(console.reading), level)
    found, _, _ = _charts(console, view, level)
    (chart,) = [chart for chart in found if chart.metric.key == metric_key]
    name = f"{page}-{metric_key}-{view.period_type.value}.csv"
    return Response(
        _csv_of(chart, level),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _csv_of(chart: Chart, level: Level) -> str:
    """Return a line per series and window that has a row; sizes in bytes."""
    row_type = DatabaseGrowth if level is Level.DATABASE else InstanceGrowth
    keys = ["instance", "database"] if level is Level.DATABASE else ["instance"]
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow([*keys, "period_start", "period_end", chart.metric.columns[row_type]])
    for series in chart.series:
        names = [series.instance, series.database_name or ""][: len(keys)]
        for window, value in zip(chart.windows, series.values, strict=True):
            if value is not None:
                writer.writerow([*map(_harmless, names), window.start, window.end, value])
    return content.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA_SIGNS) else cell


def _charts(console: Console, view: View, level: Level) -> tuple[list[Chart], Selection, list[Window]]:
    windows = view.windows(console.today())
    selection = Selection(
        period_type=view.period_type,
        first=windows[0].start,
        last=windows[-1].start,
        instance_ids=None if view.instance_id is None else [view.instance_id],
        db_types=None if view.db_type is None else [view.db_type.value],
        database_name=view.database_name,
    )
    if level is Level.DATABASE:
        return charts(capacity.top_databases(console.reading, selection, view.top), windows), selection, windows
    return charts(capacity.top_instances(console.reading, selection, view.top), windows), selection, windows


def _without_contradiction(view: View, choices: list[InstanceChoice], level: Level) -> View:
    """Return *view* without an instance that is of another engine, and without a database of no instance."""
    known = {choice.id: choice.db_type for choice in choices}
    instance_id = view.instance_id
    if instance_id is not None and view.db_type is not None and known.get(instance_id) != view.db_type.value:
        instance_id = None
    keeps_name = level is Level.DATABASE and (view.instance_id is None or instance_id is not None)
    return view.model_copy(
        update={"instance_id": instance_id, "database_name": view.database_name if keeps_name else None}
    )


def _login(request: Request) -> Response:
    scene = _scene(request)
    console, fields = scene.console, form_of(request)
    next_url = fields.get("next", "")
    if not has_admin(console.reading):
        raise ApiError(403, MessageCode.PERMISSION_REQUIRED, NO_ADMIN)
    token = console.sessions.login_token(request.cookies.get(LOGIN_COOKIE, ""))
    if token is None or not is_same(fields.get(CSRF_FIELD, ""), token):
        return _login_form(scene, next_url, scene.translate("login.expired"), 403)
    name, address = fields.get("name", "")[:255], request.client.host if request.client else ""
    wait = console.limiter.wait_seconds(address, name)
    if wait:
        answer = _login_form(scene, next_url, scene.translate("login.limited", seconds=wait), 429)
        answer.headers["Retry-After"] = str(wait)
        return answer
    user = None if "\x00" in name else check_password(console.reading, name, SecretStr(fields.get("password", "")))
    if user is None:
        console.limiter.note_failure(address, name)
        return _login_form(scene, next_url, scene.translate("login.wrong"), 401)
    done = RedirectResponse(_next(next_url), 303)
    _set_cookie(done, request, SESSION_COOKIE, console.sessions.open(user), console.sessions.seconds)
    done.delete_cookie(LOGIN_COOKIE, path="/login")
    return done


def _login_form(scene: Scene, next_url: str, problem: str = "", status: int = 200) -> Response:
    cookie, token = scene.console.sessions.login_form()
    answer = _render(
        scene,
        "login.html",
        problem=problem,
        csrf_token=token,
        next_url=_next(next_url),
        has_admin=has_admin(scene.console.reading),
    )
    answer.status_code = status
    _set_cookie(answer, scene.request, LOGIN_COOKIE, cookie, LOGIN_SECONDS, "/login")
    return answer


def _next(url: str) -> str:
    """Return *url* when it leads to a page of ours, else the first page."""
    is_ours = url.startswith("/") and not url.startswith(("//", "/\\")) and "\\" not in url and url.isprintable()
    return url if is_ours and not url.startswith("/login") else "/instances"


def _to_login(request: Request) -> Response:
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?{urlencode({'next': here})}", 303)


def _view(request: Request, model: type[Any]) -> Any:
    """Return the state that the URL says; an empty field of a form says nothing."""
    try:
        return model.model_validate({name: value for name, value in request.query_params.items() if value != ""})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        raise invalid(str(problem["loc"][0]), problem["msg"].removeprefix("Value error, ")) from error


def _scene(request: Request) -> Scene:
    return Scene(request, principal_of(request), _language(request), _theme(request))


def _language(request: Request) -> str:
    for wanted in (request.query_params.get("lang"), request.cookies.get(LANGUAGE_COOKIE)):
        if wanted in LANGUAGES:
            return wanted
    return preferred(request.headers.get("accept-language", ""))


def _theme(request: Request) -> str:
    for wanted in (request.query_params.get("theme"), request.cookies.get(THEME_COOKIE)):
        if wanted in THEMES:
            return wanted
    return THEMES[0]


def _render(scene: Scene, template: str, **values: Any) -> Response:
    words = catalogue(scene.language)
    content = (
        _environment()
        .get_template(template)
        .render(
            scene=scene,
            request=scene.request,
            principal=scene.principal,
            is_admin=scene.principal is not None and scene.principal.role is Role.ADMIN,
            t=scene.translate,
            words=words,
            languages=LANGUAGES,
            themes=THEMES,
            zone=scene.console.settings.zone,
            script_words=_json({key: word for key, word in words.items() if key.startswith(WORDS_OF_SCRIPTS)}),
            **values,
        )
    )
    answer = HTMLResponse(content)
    # A choice in the URL is remembered for the pages that do not say.
    for parameter, cookie, allowed in (("lang", LANGUAGE_COOKIE, LANGUAGES), ("theme", THEME_COOKIE, THEMES)):
        wanted = scene.request.query_params.get(parameter, "")
        if wanted in allowed:
            _set_cookie(answer, scene.request, cookie, wanted, ONE_YEAR_SECONDS)
    return answer


def _set_cookie(answer: Response, request: Request, name: str, value: str, seconds: int, path: str = "/") -> None:
    answer.set_cookie(
        name, value, max_age=seconds, path=path, secure=request.url.scheme == "https", httponly=True, samesite="lax"
    )


def _json(content: object) -> Markup:
    """Return JSON that can stand in a page: nothing in it ends the element that it is in."""
    escaped = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(escaped.replace("&", "\\u0026").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("whalefall_capacity.console"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": binary_size, "moment": moment, "duration": duration}
    environment.tests["open"] = lambda run: run.status in OPEN_STATUSES
    environment.globals |= {
        "static": static_url,
        "metrics_of": _metrics_of,
        "figure": _figure,
        "task_label": _task_label,
        "window_label": window_label,
    }
    return environment


def _task_label(words: Mapping[str, str], run: TaskRun) -> str:
    """Return the name of a task in the words of the reader, with the period and the days that it is about."""
    name = words.get(f"task.{run.task_key}")
    if name is None:
        return run.task_name
    common = (run.summary_json or {}).get("common", {})
    inputs, scope = common.get("inputs", {}), common.get("scope", {})
    parts = [name]
    if (period_type := scope.get("target", {}).get("period_type")) is not None:
        parts.append(words.get(f"period.{period_type}", period_type))
    if (asked := inputs.get("scope")) is not None:
        parts.append(words.get(f"scope.{asked}", asked))
    first = inputs.get("first") or (scope.get("time") or {}).get("date")
    last = inputs.get("last") or first
    if first is not None:
        parts.append(first if first == last else f"{first} → {last}")
    return " · ".join(parts)


def _metrics_of(item: Any) -> str:
    """Return the figures of an item in one line."""
    return " · ".join(f"{name} {_figure(name, value)}" for name, value in (item.metrics_json or {}).items())


def _figure(name: str, value: Any) -> str:
    """Return a figure of a run as people read it: sizes in binary units, large numbers in groups."""
    if isinstance(value, int) and not isinstance(value, bool):
        return binary_size(value) if name.endswith("_bytes") else f"{value:,}"
    return NOT_KNOWN if value is None else str(value)
