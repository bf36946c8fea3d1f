"""Logging in and out: a form, a session, and a limit on how often somebody may guess."""

from __future__ import annotations

import secrets

from anyio import sleep
from fastapi import APIRouter, Request
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from whalefall_capacity.console.http.cookies import cookie_name, delete_cookie, set_cookie
from whalefall_capacity.console.http.envelope import ApiError, MessageCode
from whalefall_capacity.console.http.login_limits import Attempt
from whalefall_capacity.console.http.principals import SESSION_COOKIE, credential_of
from whalefall_capacity.console.http.security import (
    CSRF_FIELD,
    NO_ADMIN,
    form_of,
    is_same,
    principal_of,
    read_body,
    require_csrf,
    too_large,
)
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.console.pages.rendering import PageContext, page_context, prefix_of, render
from whalefall_capacity.store.access import check_password, end_session, has_admin, open_session

LOGIN_COOKIE = "whalefall_login"
LOGIN_SECONDS = 3600
LONGEST_NAME = 255

router = APIRouter()


@router.get("/login")
def login_page(request: Request) -> Response:
    """Show the form, or lead on whoever is logged in."""
    context = page_context(request)
    if context.principal is not None:
        return RedirectResponse(_next(context, request.query_params.get("next", "")), 303)
    return _login_form(context, request.query_params.get("next", ""))


@router.post("/login")
async def login(request: Request) -> Response:
    """Open a session for a name and a password."""
    if not await read_body(request):
        raise too_large()
    context = await run_in_threadpool(page_context, request)
    admitted = await run_in_threadpool(_admit, context)
    if isinstance(admitted, Response):
        return admitted
    # Outside of the threads: while these wait, others are served.
    await sleep(admitted.delay_seconds)
    return await run_in_threadpool(_login, context, admitted)


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session, for whoever has its cookie."""
    if not await read_body(request):
        raise too_large()
    return await run_in_threadpool(_logout, request)


def _admit(context: PageContext) -> Attempt | Response:
    """Return the attempt that the form is, or the answer when there is to be none."""
    console, request, fields = context.console, context.request, form_of(context.request)
    next_url = fields.get("next", "")
    if not has_admin(console.reading):
        raise ApiError(MessageCode.PERMISSION_REQUIRED, NO_ADMIN)
    token = request.cookies.get(cookie_name(request, LOGIN_COOKIE), "")
    if not token or not is_same(fields.get(CSRF_FIELD, ""), token):
        return _login_form(context, next_url, context.translate("login.expired"), 403)
    address = request.client.host if request.client else ""
    attempt = console.limiter.admit(address, fields.get("name", "")[:LONGEST_NAME])
    if attempt is None:
        wait = max(1, console.limiter.wait_seconds(address))
        answer = _login_form(context, next_url, context.translate("login.limited", seconds=wait), 429)
        answer.headers["Retry-After"] = str(wait)
        return answer
    return attempt


def _login(context: PageContext, attempt: Attempt) -> Response:
    console, request, fields = context.console, context.request, form_of(context.request)
    user = check_password(console.reading, attempt.name, SecretStr(fields.get("password", "")))
    if user is None:
        return _login_form(context, fields.get("next", ""), context.translate("login.wrong"), 401)
    console.limiter.forgive(attempt)
    hours = console.settings.session_hours
    done = RedirectResponse(_next(context, fields.get("next", "")), 303)
    cookie = open_session(console.engine, user, hours).get_secret_value()
    set_cookie(done, request, SESSION_COOKIE, cookie, hours * 3600)
    delete_cookie(done, request, LOGIN_COOKIE)
    return done


def _logout(request: Request) -> Response:
    console: Console = request.app.state.console
    principal = principal_of(console, request)
    answer = RedirectResponse(f"{prefix_of(request)}/login", 303)
    if principal is not None:
        require_csrf(request, principal)
        credential = credential_of(request)
        is_token, cookie = credential
        if not is_token:
            end_session(console.engine, cookie)
            console.principals.forget(credential)
    delete_cookie(answer, request, SESSION_COOKIE)
    return answer


def _login_form(context: PageContext, next_url: str, problem: str = "", status: int = 200) -> Response:
    # In the cookie and in the form: a page elsewhere can send the one, but not know what to write into the other.
    token = secrets.token_urlsafe(24)
    answer = render(
        context,
        "login.html",
        problem=problem,
        csrf_token=token,
        next_url=_next(context, next_url),
        has_admin=has_admin(context.console.reading),
    )
    answer.status_code = status
    set_cookie(answer, context.request, LOGIN_COOKIE, token, LOGIN_SECONDS)
    return answer


def _next(context: PageContext, url: str) -> str:
    """Return *url* when it leads to a page of ours, else the first page."""
    is_ours = url.startswith("/") and not url.startswith(("//", "/\\")) and "\\" not in url and url.isprintable()
    return url if is_ours and not url.startswith(f"{context.prefix}/login") else "/"
