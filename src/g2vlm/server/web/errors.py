"""Errors as OpenAI's clients know them, for whatever went wrong."""

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from g2vlm.errors import G2VLMError, MemoryLimitError, OutputError
from g2vlm.server.engine.errors import StoppingError
from g2vlm.server.guard.refusals import BusyError, RefusedError

_log = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""Status in logs and metrics of a request whose client left; nobody receives it."""
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_format"}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="What was expected, what came, what to do.")
    type: str = Field(description="Class of the error, as OpenAI names them.")
    param: str | None = Field(description="Part of the request that it is about.")
    code: str | None = Field(description="Short name of the reason, which stays the same between releases.")


class ErrorBody(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail


class ClientLeftError(Exception):
    """Nobody waits for the answer of this request any more."""


class ParameterError(RefusedError):
    """A parameter that cannot be honoured."""

    def __init__(self, message: str, param: str, code: str = "unsupported_parameter") -> None:
        super().__init__(message)
        self.param = param
        self.code = code  # type: ignore[misc]


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An answer in the shape that OpenAI's clients read."""
    return JSONResponse(error_content(status, message, param=param, code=code), status, dict(headers or {}))


def error_content(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of an error."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}}


def status_of(error: Exception) -> int:
    """The HTTP status that stands for an error."""
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, StoppingError):
        return 503
    if isinstance(error, MemoryLimitError):
        return 413
    if isinstance(error, OutputError):
        # The disk is to blame, or the scene, which holds nothing that could be written.
        return 507 if isinstance(error.__cause__, OSError) else 409
    return 400 if isinstance(error, G2VLMError) else 500


def described(error: Exception) -> tuple[int, str, str | None, str | None]:
    """Status, message, parameter and code of an error; of a defect nothing is told but that it is one."""
    status = status_of(error)
    if status == 500:
        return status, "The service failed to answer; its log says why.", None, "internal_error"
    code = getattr(error, "code", None)
    return status, " ".join(str(error).split()), getattr(error, "param", None), code


def response_of(error: Exception) -> JSONResponse:
    """The answer to a request that ended with an error."""
    status, message, param, code = described(error)
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == 503:
        headers["Retry-After"] = "5"
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer, Basic realm="g2vlm", charset="UTF-8"'
    return error_response(status, message, param=param, code=code, headers=headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of an endpoint for its description; those that any endpoint has are added."""
    reasons = {
        400: "The request cannot be honoured as it stands.",
        401: "No API key, or none that is valid.",
        403: "Not allowed.",
        404: "There is no such thing, or it belongs to somebody else.",
        405: "No such method here.",
        408: "It took longer than allowed.",
        409: "The state of the thing does not allow it.",
        413: "More than the limits allow.",
        415: "Not a format that is read.",
        422: "A picture or video that cannot be decoded.",
        429: "Too much is being done: try again later.",
        503: "The service is going down, or not ready.",
        507: "The disk is full.",
    }
    always = (400, 401, 403, 404, 405, 408, 413, 429, 503)
    found = sorted({*always, *statuses})
    described: dict[int | str, dict[str, Any]] = {
        status: {"description": reasons[status], "model": ErrorBody} for status in found
    }
    described[429]["headers"] = {
        "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
    }
    return described


def methods_at(app: FastAPI, path: str) -> list[str]:
    """Methods of the endpoints at a path: where several patterns match, of the one whose parameters do."""
    best: list[str] = []
    for template, operations in app.openapi()["paths"].items():
        match = compile_path(template)[0].match(path)
        if match is None:
            continue
        best = sorted(method.upper() for method in operations)
        parameters = next(iter(operations.values())).get("parameters", ())
        patterns = {
            one["name"]: one["schema"].get("pattern", "") for one in parameters if one["in"] == "path"
        }
        if all(re.search(patterns.get(name, ""), value) for name, value in match.groupdict().items()):
            break
    return best


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in one shape."""

    @app.exception_handler(G2VLMError)
    async def of_users(_request: Request, error: G2VLMError) -> JSONResponse:
        return response_of(error)

    @app.exception_handler(RequestValidationError)
    async def of_validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part != "body"]
        param = ".".join(place) or None
        message = f"{param}: {first['msg']}" if param else str(first["msg"])
        return error_response(400, message, param=param, code="invalid_value")

    @app.exception_handler(HTTPException)
    async def of_protocol(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # The router names the methods of the first endpoint at this path only.
            headers["Allow"] = ", ".join(methods_at(app, request.url.path))
        return error_response(error.status_code, str(error.detail), headers=headers)

    @app.exception_handler(ClientLeftError)
    async def of_nobody(_request: Request, _error: ClientLeftError) -> JSONResponse:
        return error_response(CLIENT_LEFT, "The client left.")

    @app.exception_handler(Exception)
    async def of_defects(_request: Request, error: Exception) -> JSONResponse:
        return response_of(error)
