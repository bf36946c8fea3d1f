"""The one shape of every answer of the API, good or bad."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field
from starlette.responses import Response

from whalefall_capacity.periods import utc_now
from whalefall_capacity.sentences import Sentence

Data = TypeVar("Data")


class MessageCode(StrEnum):
    """Kind of an error, for programs; its status is that of the answer."""

    VALIDATION_ERROR = "VALIDATION_ERROR", 400
    AUTHENTICATION_REQUIRED = "AUTHENTICATION_REQUIRED", 401
    PERMISSION_REQUIRED = "PERMISSION_REQUIRED", 403
    CSRF_MISSING = "CSRF_MISSING", 403
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND", 404
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED", 405
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT", 408
    CONFLICT = "CONFLICT", 409
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE", 413
    INTERNAL_ERROR = "INTERNAL_ERROR", 500
    UNAVAILABLE = "UNAVAILABLE", 503

    status: int

    def __new__(cls, code: str, status: int) -> MessageCode:
        member = str.__new__(cls, code)
        member._value_ = code
        member.status = status
        return member


class Envelope(BaseModel, Generic[Data]):
    """A good answer."""

    success: Literal[True]
    error: Literal[False]
    message: str
    timestamp: datetime
    data: Data


class FieldError(BaseModel):
    """A fault of one parameter or one field of the body."""

    field: str
    message: str


class ErrorData(BaseModel):
    """Details of an error."""

    errors: list[FieldError]


class ErrorEnvelope(BaseModel):
    """A bad answer."""

    success: Literal[False]
    error: Literal[True]
    message: str
    message_code: MessageCode
    timestamp: datetime
    data: ErrorData | None = Field(description="The fields that are wrong, for VALIDATION_ERROR.")


class ApiError(Exception):
    """An answer other than the one that was asked for; *errors* gives, per field, what is wrong with it."""

    def __init__(
        self,
        code: MessageCode,
        message: str,
        errors: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.errors = errors
        self.headers = headers


def invalid(field: str, message: str) -> ApiError:
    """Return the error of one bad parameter."""
    told = Sentence("{field}: {fault}", field=field, fault=Sentence(message) if type(message) is str else message)
    return ApiError(MessageCode.VALIDATION_ERROR, told, {field: message})


def not_found(what: str) -> ApiError:
    """Return the error of something that is not there."""
    return ApiError(MessageCode.RESOURCE_NOT_FOUND, what)


def success(data: Any, message: str = "", status: int = 200) -> Response:
    """Return a good answer."""
    return _answer(status, {"success": True, "error": False, "message": message, "timestamp": utc_now(), "data": data})


def failure(error: ApiError, message: str) -> Response:
    """Return a bad answer, with the *message* of the error in the caller's language."""
    errors = error.errors
    content = {
        "success": False,
        "error": True,
        "message": message,
        "message_code": error.code,
        "timestamp": utc_now(),
        "data": None if errors is None else {"errors": [{"field": f, "message": m} for f, m in errors.items()]},
    }
    return _answer(error.code.status, content, error.headers)


def plain(value: object) -> object:
    """Return what JSON has in place of *value*."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Enum):
        return value.value
    # A frozen dataclass: one row.
    return vars(value)


def _answer(status: int, content: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(content, default=plain), status, headers, "application/json")
