"""Kubernetes documents against schemas, stricter than Kubernetes: unknown fields are errors."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

CRDS = Path(__file__).parent / "kuberay_crds.json"


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        name: (
            {key: _strict(part) for key, part in value.items()}
            if name in ("properties", "$defs", "kinds")
            else _strict(value)
        )
        for name, value in schema.items()
    }
    if made.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if made.get("type") == "object" and "properties" in made:
        open_ended = made.get("x-kubernetes-preserve-unknown-fields") or (
            "additionalProperties" in made
        )
        if not open_ended:
            made["additionalProperties"] = False
        # the API server fills these in
        given = {
            name
            for name, part in made["properties"].items()
            if isinstance(part, dict) and "default" in part
        }
        made["required"] = [name for name in made.get("required", []) if name not in given]
    if made.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


@cache
def _schemas() -> dict[str, Any]:
    return _strict(json.loads(CRDS.read_text(encoding="utf-8")))


@cache
def _validator(pointer: str) -> Draft202012Validator:
    schemas = _schemas()
    return Draft202012Validator({"$ref": f"#/{pointer}", **schemas})


def ray_errors(document: dict[str, Any]) -> list[str]:
    """What is wrong with a RayCluster, RayJob or RayService."""
    assert document["apiVersion"] == "ray.io/v1"
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:160]}"
        for error in _validator(f"kinds/{document['kind']}").iter_errors(document)
    ]


def part_errors(kind: str, path: tuple[str, ...], document: Any) -> list[str]:
    """What is wrong with a part that one of Ray's kinds contains too, by its path of properties."""
    schemas = _schemas()
    schema: dict[str, Any] = schemas["kinds"][kind]
    for name in path:
        while "$ref" in schema:
            schema = schemas["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        schema = schema["items"] if name == "[]" else schema["properties"][name]
    validator = Draft202012Validator({**schema, "$defs": schemas["$defs"]})
    return [error.message[:160] for error in validator.iter_errors(document)]
