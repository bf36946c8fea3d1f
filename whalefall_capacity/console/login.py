"""Logging in and out: a form, a signed cookie, and a limit on how often somebody may guess."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from whalefall_capacity.console.envelope import ApiError, MessageCode
from whalefall_capacity.console.rendering import Scene, prefix_of, render, scene_of, set_cookie
from whalefall_capacity.console.security import (
    CSRF_FIELD,
    LOGIN_COOKIE,
    LOGIN_SECONDS,
    NO_ADMIN,
    SESSION_COOKIE,
    form_of,
    is_same,
    principal_of,
    read_body,
    require_csrf,
    too_large,
)
from whalefall_capacity.store.access import check_password, has_admin

router = APIRouter()


@router.get("/login")
def login_page(request: Request) -> Response:
    """Show the form, or lead on whoever is logged in."""
    scene = scene_of(request)
    if scene.principal is not None:
        return RedirectResponse(_next(scene, request.query_params.get("next", "")), 303)
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
    answer = RedirectResponse(f"{prefix_of(request)}/login", 303)
    answer.delete_cookie(SESSION_COOKIE, path="/")
    return answer


def _login(request: Request) -> Response:
    scene = scene_of(request)
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
    done = RedirectResponse(_next(scene, next_url), 303)
    set_cookie(done, request, SESSION_COOKIE, console.sessions.open(user), console.sessions.seconds)
    done.delete_cookie(LOGIN_COOKIE, path=f"{scene.prefix}/login")
    return done


def _login_form(scene: Scene, next_url: str, problem: str = "", status: int = 200) -> Response:
    cookie, token = scene.console.sessions.login_form()
    answer = render(
        scene,
        "login.html",
        problem=problem,
        csrf_token=token,
        next_url=_next(scene, next_url),
        has_admin=has_admin(scene.console.reading),
    )
    answer.status_code = status
    set_cookie(answer, scene.request, LOGIN_COOKIE, cookie, LOGIN_SECONDS, f"{scene.prefix}/login")
    return answer


def _next(scene: Scene, url: str) -> str:
    """Return *url* when it leads to a page of ours, else the first page."""
    is_ours = url.startswith("/") and not url.startswith(("//", "/\\")) and "\\" not in url and url.isprintable()
    return url if is_ours and not url.startswith(f"{scene.prefix}/login") else scene.home
