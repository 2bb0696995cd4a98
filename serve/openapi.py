"""What the OpenAPI document says beyond the routes' own types: bodies, examples, errors."""

from typing import Any

from farm.requests import METHODS
from serve.problems import Problem

_EDIT = {
    "source_prompt": "a red circle and a green square",
    "target_prompt": "a blue circle and a green square",
    "target_word": "blue",
    "method": "style_diffusion",
    "seed": 0,
}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 2000}
_FIELDS: dict[str, Any] = {
    "source_prompt": _TEXT | {"description": "What the picture shows."},
    "target_prompt": _TEXT | {"description": "What it shall show."},
    "target_word": {
        "type": "string",
        "minLength": 1,
        "maxLength": 80,
        "description": "The word of the target prompt that says what is new.",
    },
    "method": {"type": "string", "enum": list(METHODS)},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    "model_set": {"type": "string", "maxLength": 256},
    "priority": {"type": "string", "enum": ["interactive", "batch"]},
    "deterministic": {"type": "boolean"},
    "id": {"type": "string", "description": "Your own name of this edit.", "maxLength": 64},
    "user": {"type": "string", "minLength": 1, "maxLength": 128},
    "webhook_url": {"type": "string", "maxLength": 2000},
}
_PARAMETERS = {"description": "The method's parameters, as docs/ and the manifest have them."}
_NAMED = {"type": "string", "description": "`inputs/<sha256>`, `uploads/…` or `<store>://<key>`."}

SUBMIT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "source_prompt", "target_prompt"],
                    "properties": _FIELDS
                    | {
                        "image": {"type": "string", "format": "binary"},
                        "mask": {"type": "string", "format": "binary"},
                        "parameters": {"type": "string"} | _PARAMETERS,
                    },
                    "additionalProperties": False,
                },
                "example": _EDIT | {"image": "(the bytes of a PNG, JPEG or WebP file)"},
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["image", "source_prompt", "target_prompt"],
                    "properties": _FIELDS
                    | {
                        "image": _NAMED,
                        "mask": _NAMED,
                        "parameters": {"type": "object"} | _PARAMETERS,
                    },
                    "additionalProperties": False,
                },
                "example": _EDIT | {"image": "photos://2026/circle.png"},
            },
        },
    }
}

OPENAI_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "prompt", "source_prompt"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "mask": {"type": "string", "format": "binary"},
                        "prompt": _TEXT | {"description": "What the picture shall show."},
                        "source_prompt": _FIELDS["source_prompt"],
                        "target_word": _FIELDS["target_word"],
                        "method": _FIELDS["method"],
                        "seed": _FIELDS["seed"],
                        "parameters": {"type": "string"} | _PARAMETERS,
                        "model": {"type": "string"},
                        "n": {"type": "integer", "minimum": 1, "maximum": 10},
                        "size": {"type": "string", "examples": ["auto", "256x256"]},
                        "response_format": {"type": "string", "enum": ["url", "b64_json"]},
                        "output_format": {"type": "string", "enum": ["png", "jpeg", "webp"]},
                        "output_compression": {"type": "integer", "minimum": 0, "maximum": 100},
                        "stream": {"type": "boolean"},
                        "partial_images": {"type": "integer", "minimum": 0, "maximum": 3},
                        "user": _FIELDS["user"],
                    },
                    "additionalProperties": False,
                },
            }
        },
    }
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route: these and the ones that every route may give."""
    texts = {
        400: "The body cannot be read.",
        401: "No valid API key.",
        403: "Not from here.",
        404: "There is no such thing, or it is not yours.",
        409: "The state does not allow it, or an Idempotency-Key is used for something else.",
        413: "The body is too long.",
        415: "The body is of another kind.",
        421: "Not by this name.",
        422: "A field is wrong; `detail` says which, and what to change.",
        429: "A limit is reached; `Retry-After` says when to ask again.",
        431: "Too many or too long headers.",
        500: "The farm is at fault.",
        503: "The machine is not there; try again.",
    }
    wanted = sorted({401, 403, 413, 421, 422, 431, 500, 503, *statuses})
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {status: {"description": texts[status], "content": content} for status in wanted}
