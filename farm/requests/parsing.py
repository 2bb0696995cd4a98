"""`EditRequest`: the one contract that manifests, the command line and HTTP share."""

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from farm.errors import InvalidRequestError
from farm.requests.style_diffusion import StyleDiffusionRequest

EditRequest = StyleDiffusionRequest
"""Discriminated by `method`; a union as soon as there is a second method."""

_ADAPTER: TypeAdapter[EditRequest] = TypeAdapter(EditRequest)


def parse_request(data: str | bytes | dict[str, Any]) -> EditRequest:
    """A request from JSON text or a mapping.

    Raises:
        InvalidRequestError: naming each wrong field, what was found and what is expected.
    """
    try:
        if not isinstance(data, dict):
            data = json.loads(data)
        return _ADAPTER.validate_python(data)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"not JSON ({error.msg} at column {error.colno}): one JSON object is expected"
        ) from error
    except ValidationError as error:
        raise InvalidRequestError(describe(error)) from error


def describe(error: ValidationError) -> str:
    """All complaints of pydantic in one line that a user can act on."""
    lines: list[str] = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"]) or "request"
        found = item.get("input")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f"{where}: no such field; remove it or mend its name")
        elif item["type"] in ("missing", "value_error"):
            lines.append(f"{where}: {message}")
        else:
            lines.append(f"{where}: {message}, found {found!r:.80}")
    return "; ".join(lines)
