"""What may be set of each method: names, what they take, what they do; read from the requests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from farm.requests.base import BaseRequest
from farm.requests.parsing import EditRequest

_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}


@dataclass(frozen=True)
class Option:
    """One parameter of a method.

    Attributes:
        name: as in `parameters`.
        takes: values that are allowed, in words.
        effect: what it does.
    """

    name: str
    takes: str
    effect: str


def request_classes() -> dict[str, type[BaseRequest]]:
    """The class of each method's requests."""
    (union, *_) = get_args(EditRequest)
    classes = [get_args(arm)[0] for arm in get_args(union)]
    return {cls.model_fields["method"].default: cls for cls in classes}


def options_of(method: str) -> list[Option]:
    """All parameters of a method, in the order of their definition."""
    parameters: Any = request_classes()[method].model_fields["parameters"].annotation
    schema: Mapping[str, Any] = parameters.model_json_schema()
    return [
        Option(name, _takes(about, schema), " ".join(about.get("description", "").split()))
        for name, about in schema["properties"].items()
    ]


def _takes(about: Mapping[str, Any] | bool, schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words; True is that of anything."""
    if isinstance(about, bool):
        return "anything"
    if "$ref" in about:
        name = str(about["$ref"]).rpartition("/")[2]
        return "{" + ", ".join(schema["$defs"][name]["properties"]) + "}"
    if "anyOf" in about:
        forms = [_takes(form, schema) for form in about["anyOf"] if form.get("type") != "null"]
        return " or ".join(dict.fromkeys(forms))
    if "enum" in about:
        return ", ".join(map(str, about["enum"]))
    match about["type"]:
        case "array":
            return f"list of: {_takes(about['items'], schema)}"
        case "object":
            return f"by {_key(about)}: {_takes(about['additionalProperties'], schema)}"
        case kind:
            return f"{_WORDS[kind]}{_range(about)}"


def _key(about: Mapping[str, Any]) -> str:
    """What the names of an object's fields are."""
    choices = about.get("propertyNames", {}).get("enum")
    return "word" if choices is None else ", ".join(choices)


def _range(about: Mapping[str, Any]) -> str:
    least, above = about.get("minimum"), about.get("exclusiveMinimum")
    most, below = about.get("maximum"), about.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f" {least:g} to {most:g}"
    parts = [
        f"{word} {limit:g}"
        for word, limit in (
            ("from", least),
            ("above", above),
            ("to", most),
            ("below", below),
        )
        if limit is not None
    ]
    return "".join(f" {part}" for part in parts)
