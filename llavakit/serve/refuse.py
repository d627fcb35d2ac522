"""Every refusal in OpenAI's JSON shape, with the status that says whose fault it is."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from llavakit.base.errors import BadRecord, BadRequest, LlavakitError
from llavakit.base.log import log
from llavakit.serve.wire import Error, ErrorBody

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}


class Refused(Exception):
    """A request that is not carried out: HTTP status, the reason, OpenAI's code for it, the field that is to blame."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers: dict[str, str] = {}

    def body(self) -> ErrorBody:
        # What the client sent may stand in the message, and half a surrogate pair cannot be written as UTF-8.
        message = self.message.encode("utf-8", "replace").decode()
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return ErrorBody(message=message, type=kind, param=self.param, code=self.code)

    def response(self) -> Response:
        return JSONResponse(Error(error=self.body()).model_dump(), self.status, self.headers)


def overloaded(seconds: float) -> Refused:
    """429 with Retry-After."""
    wait = min(60, max(1, math.ceil(seconds)))
    refused = Refused(429, f"too many requests are waiting; try again in {wait} s", "overloaded")
    refused.headers["Retry-After"] = str(wait)
    return refused


def refusal(error: Exception) -> Refused:
    """Any failure as a refusal: 400 for what was asked wrongly, 500 for the rest."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, BadRecord):
        return Refused(400, error.reason)
    if isinstance(error, BadRequest):
        return Refused(400, str(error))
    log.error("a request failed: %s: %s", type(error).__name__, error, exc_info=not isinstance(error, LlavakitError))
    return Refused(500, str(error) if isinstance(error, LlavakitError) else "the server failed; its log says more")


def install(app: FastAPI) -> None:
    """Makes every error of the application one of this shape."""

    def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        # "body", then the path; tags of unions (a role, a part's type) stand in it too, and say which was meant.
        path = ".".join(str(part) for part in first["loc"][1:])
        where = path.encode("utf-8", "replace").decode() or None
        message = f"{where}: {first['msg']}" if where else str(first["msg"])
        if first["type"] == "json_invalid":
            where, message = None, f"the body is not JSON: {first['ctx']['error']}"
        return Refused(400, message, param=where).response()

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refused = Refused(error.status_code, str(error.detail))
        refused.headers.update(error.headers or {})
        return refused.response()

    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    for kind in (Refused, LlavakitError, Exception):
        app.add_exception_handler(kind, lambda request, error: refusal(error).response())
