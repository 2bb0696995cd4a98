"""Every error body has one shape: RFC 9457 problem details, which OpenAI's clients read too.

`message`, `code` and `param` are what OpenAI's clients look for in an error body.
"""

import re
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from farm.errors import (
    EditCancelledError,
    EditDivergedError,
    EditFailedError,
    FarmError,
    InvalidRequestError,
    ModelSetError,
    QueueFullError,
)
from farm.storage.store import MissingKeyError

_PATHS = re.compile(r"(?:\b(?:file|s3|https?)://|(?<![\w.:/])/)[^\s'\",;:)]*[^\s'\",;:).]")
_KEYS = re.compile(r"\bef_[A-Za-z0-9_-]+")
_CODE = re.compile(r"(?<!^)(?=[A-Z])")


class Problem(BaseModel):
    """Body of every response that is no success."""

    type: str = Field(examples=["invalid_request_error"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    code: str = Field(examples=["unknown_word"])
    """What programs tell errors apart by."""
    detail: str = Field(examples=["word 'cat' is not in the target prompt"])
    message: str = Field(examples=["word 'cat' is not in the target prompt"])
    """The same, under the name that OpenAI's clients read."""
    param: str | None = None
    request_id: str | None = None


class TooLongError(EditFailedError):
    """An edit ran longer than the operator allows."""


class ProblemError(Exception):
    """Becomes a problem body."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.param, self.headers = param, headers or {}


class NotFoundError(ProblemError):
    """Also for what is another tenant's: nobody learns that it exists."""

    def __init__(self, what: str) -> None:
        super().__init__(404, "not_found", f"there is no such {what}")


class ConflictError(ProblemError):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(409, code, detail)


class TooManyError(ProblemError):
    """With the seconds after which asking again may help."""

    def __init__(self, code: str, detail: str, retry_after: float) -> None:
        seconds = max(1, round(retry_after))
        super().__init__(429, code, detail, headers={"Retry-After": str(seconds)})


class BusyError(ProblemError):
    """The machine is not there; trying again may help."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, "unavailable", detail, headers={"Retry-After": "2"})


def problem_of(error: FarmError) -> ProblemError:
    """A farm's error as what a stranger may read of it: no path, no address, no key."""
    if isinstance(error, MissingKeyError):
        return NotFoundError("object")
    headers = {"Retry-After": "2"} if error.retryable else None
    status = 429 if isinstance(error, QueueFullError) else error.http_status
    return ProblemError(status, code_of(error), safe_detail(error), headers=headers)


def code_of(error: FarmError) -> str:
    """`InvalidImageError` → `invalid_image`."""
    return _CODE.sub("_", type(error).__name__.removesuffix("Error")).lower()


def safe_detail(error: FarmError) -> str:
    """The error's own words where they are about the request, else words of its kind."""
    match error:
        case ModelSetError():
            return "the model set cannot be used; the operator's log says why"
        case InvalidRequestError() | EditDivergedError() | EditCancelledError() | TooLongError():
            return scrubbed(error.message)
        case EditFailedError():
            return "the edit failed; another seed or other parameters may do"
        case _:
            return "the farm cannot do this right now; try again"


def scrubbed(text: str) -> str:
    """Without paths, addresses and keys."""
    return _KEYS.sub("[key]", _PATHS.sub("[path]", text))


def problem_body(error: ProblemError, request_id: str | None) -> dict[str, Any]:
    """What is sent; see `Problem`."""
    return Problem(
        type=_TYPES.get(error.status, "server_error" if error.status >= 500 else _INVALID),
        title=_TITLES.get(error.status, "Error"),
        status=error.status,
        code=error.code,
        detail=error.detail,
        message=error.detail,
        param=error.param,
        request_id=request_id,
    ).model_dump()


def problem_response(error: ProblemError, request_id: str | None) -> JSONResponse:
    """The response itself."""
    return JSONResponse(
        problem_body(error, request_id),
        error.status,
        headers=error.headers,
        media_type="application/problem+json",
    )


_INVALID = "invalid_request_error"
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
