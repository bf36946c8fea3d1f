"""The router of all pages, and the page of an error."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from whalefall_capacity.console.http.envelope import ApiError, MessageCode
from whalefall_capacity.console.pages import (
    capacity_pages,
    detail_pages,
    list_pages,
    login,
    outlook_pages,
    overview_page,
    partitions_page,
    run_centre,
)
from whalefall_capacity.console.pages.rendering import (
    anonymous_context,
    page_context,
    render,
    to_login,
)

router = APIRouter()
router.include_router(login.router)
router.include_router(overview_page.router)
router.include_router(list_pages.router)
router.include_router(detail_pages.router)
router.include_router(capacity_pages.router)
router.include_router(outlook_pages.router)
router.include_router(run_centre.router)
router.include_router(partitions_page.router)


def error_page(request: Request, error: ApiError) -> Response:
    """Return the page that tells of an error; whoever is not logged in is led to the login."""
    if error.code is MessageCode.AUTHENTICATION_REQUIRED:
        return to_login(request)
    try:
        context = page_context(request)
    except Exception:
        context = anonymous_context(request)
    answer = render(context, "error.html", status=error.code.status, detail=context.said(error.message))
    answer.status_code = error.code.status
    answer.headers.update(error.headers or {})
    return answer
