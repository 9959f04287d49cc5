"""Errors as responses: OpenAI's shape, a fitting status, and no traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sdpack.errors import InputError, SdpackError
from sdpack.serve.scheduler import BusyError, EndingError
from sdpack.serve.schemas import ErrorBody, ErrorData
from sdpack.serve.service import BadRequestError
from sdpack.serve.work import CancelledJobError, TimedOutError

log = logging.getLogger("sdpack.serve")
GONE = 499  # the client has disconnected and does not read the response

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": words}
    for status, words in (
        (400, "The request is not valid"),
        (401, "An API key is required"),
        (404, "Not found"),
        (413, "The request is too large"),
        (429, "The queue is full"),
        (500, "The pictures could not be drawn"),
        (503, "Not ready, or shutting down"),
        (504, "The request timed out"),
    )
}


class NotReadyError(SdpackError):
    """The engines are not loaded yet, or cannot be."""


class GoneError(SdpackError):
    """The client has disconnected."""


class NotFoundError(SdpackError):
    """The model, job or image does not exist."""

    def __init__(self, message: str, code: str = "not_found") -> None:
        super().__init__(message)
        self.code = code


def error_data(error: Exception) -> tuple[int, ErrorData]:
    """The status and body of an error."""
    message = str(error)
    match error:
        case BadRequestError():
            return 400, _wrong(message, error.param)
        case InputError():
            return 400, _wrong(message)
        case NotFoundError():
            return 404, _wrong(message, code=error.code)
        case BusyError():
            return 429, ErrorData(message=message, type="rate_limit_error", code="queue_full")
        case NotReadyError() | EndingError() | CancelledJobError():
            return 503, ErrorData(message=message, type="server_error", code="unavailable")
        case TimedOutError():
            return 504, ErrorData(message=message, type="server_error", code="timeout")
        case GoneError():
            return GONE, ErrorData(message=message, type="server_error", code="gone")
        case SdpackError():
            return 500, ErrorData(message=message, type="server_error", code="failed")
    return 500, ErrorData(message="the server failed; see its log", type="server_error")


def _wrong(message: str, param: str | None = None, code: str | None = None) -> ErrorData:
    return ErrorData(message=message, type="invalid_request_error", param=param, code=code)


def answer(error: Exception) -> JSONResponse:
    """An error as a response."""
    status, data = error_data(error)
    headers = {"retry-after": str(error.retry_s)} if isinstance(error, BusyError) else {}
    if status == 503:
        headers["retry-after"] = "1"
    return _response(status, data, headers)


def _wrong_body(request: Request) -> str:
    """Why a request's body could not be read as a JSON object."""
    if request.headers.get("content-length") == "0" or not _has_body(request):
        return "the request has no body; send a JSON object and Content-Type: application/json"
    given = request.headers.get("content-type")
    if given is None:
        return "send Content-Type: application/json; the request has no content type"
    if not _is_json(given):
        return f"send Content-Type: application/json, not {given[:80]!r}"
    return 'the request must be a JSON object, such as {"prompt": "a red heart"}'


def _has_body(request: Request) -> bool:
    return "content-length" in request.headers or "transfer-encoding" in request.headers


def _is_json(content_type: str) -> bool:
    """Whether a body of this media type is JSON (RFC 6839 for the suffix)."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _response(
    status: int, data: ErrorData, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(ErrorBody(error=data).model_dump(), status, dict(headers or {}))


def add_answers(app: FastAPI) -> None:
    """Have an application respond to errors that way."""

    @app.exception_handler(SdpackError)
    async def _(request: Request, error: SdpackError) -> JSONResponse:
        status, _ = error_data(error)
        if status >= 500 and status != 503:
            log.warning("%s %s: %s", request.method, request.url.path, error)
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        problem = error.errors()[0]
        if tuple(problem["loc"]) == ("body",):
            return _response(400, _wrong(_wrong_body(request)))
        steps = [str(step) for step in problem["loc"] if step not in ("body", "query", "path")]
        if problem["type"] == "json_invalid":
            return _response(
                400, _wrong(f"the request is not valid JSON: {problem['ctx']['error']}")
            )
        name = ".".join(steps)[:80]
        reason = str(problem["msg"]).encode(errors="replace").decode()
        shown = name.encode(errors="replace").decode()
        message = f"{shown}: {reason}" if shown else reason
        return _response(400, _wrong(message, shown or None))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        what = f"{request.method} {request.url.path}"
        known = {404: f"there is no {what}", 405: f"{what} is not allowed"}
        message = known.get(error.status_code, str(error.detail))
        return _response(error.status_code, _wrong(message), error.headers)
