"""`EditRequest`: the one contract that manifests, the command line and HTTP share."""

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeAlias, get_args

from pydantic import BaseModel, Discriminator, Tag, TypeAdapter, ValidationError

from farm.errors import InvalidRequestError
from farm.requests.auto import AutoRequest
from farm.requests.edit_infinity import EditInfinityRequest
from farm.requests.learnable_regions import LearnableRegionsRequest
from farm.requests.style_diffusion import StyleDiffusionRequest

DEFAULT_METHOD = "style_diffusion"
METHODS = ("style_diffusion", "learnable_regions", "edit_infinity", "auto")


def _method(value: Any) -> Any:
    """What tells the kinds of requests apart: their method, or the default where none is named."""
    found = value.get("method") if isinstance(value, dict) else getattr(value, "method", None)
    return DEFAULT_METHOD if found is None else found


EditRequest: TypeAlias = Annotated[
    Annotated[StyleDiffusionRequest, Tag("style_diffusion")]
    | Annotated[LearnableRegionsRequest, Tag("learnable_regions")]
    | Annotated[EditInfinityRequest, Tag("edit_infinity")]
    | Annotated[AutoRequest, Tag("auto")],
    Discriminator(
        _method,
        custom_error_type="unknown_method",
        custom_error_message=f"no such method; there are {', '.join(METHODS)}",
    ),
]
"""Discriminated by `method`."""

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
        where = ".".join(str(part) for part in item["loc"] if part not in METHODS) or "request"
        found = item.get("input")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            near = _meant(item["loc"])
            mend = f"did you mean {near}?" if near else "remove it or mend its name"
            lines.append(f"{where}: no such field; {mend}")
        elif item["type"] == "unknown_method":
            near = near_names(str(_method(found)), METHODS)
            meant = f"; did you mean {near}?" if near else ""
            lines.append(f"method: {message}, found {_method(found)!r:.80}{meant}")
        elif item["type"] in ("missing", "value_error"):
            lines.append(f"{where}: {message}")
        else:
            lines.append(f"{where}: {message}, found {found!r:.80}")
    return "; ".join(lines)


def near_names(name: str, known: Iterable[str]) -> str:
    """Known names that somebody may have meant, in words; empty where none is near."""
    return " or ".join(difflib.get_close_matches(name, list(known), n=2))


def _meant(place: Sequence[str | int]) -> str:
    """What a field that is not there may be: a parameter in the wrong place, or a near name."""
    *above, last = place
    if str(last) in _fields_at([*above, "parameters"]):
        return f"parameters.{last}"
    return near_names(str(last), _fields_at(above))


def _fields_at(place: Sequence[str | int]) -> list[str]:
    """Names of the fields at a place of a request that pydantic names; empty where it is no model.

    The place begins with the method, which tells the kinds of requests apart.
    """
    (union, *_) = get_args(EditRequest)
    kinds = {get_args(arm)[1].tag: get_args(arm)[0] for arm in get_args(union)}
    model: Any = kinds.get(str(place[0])) if place else None
    for part in place[1:]:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        field = model.model_fields.get(str(part))
        model = None if field is None else field.annotation
    is_model = isinstance(model, type) and issubclass(model, BaseModel)
    return list(model.model_fields) if is_model else []
