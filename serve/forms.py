"""From a request's body to a `Submission`: JSON, or a form with the picture attached."""

import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from serve.guard import too_large
from serve.intake import Submission
from serve.limits import RequestLimits
from serve.problems import ProblemError
from serve.webhooks import check_webhook

_OURS = ("webhook_url", "user", "priority")
"""Fields of a submission that are none of the edit's."""


async def read_json(request: Request, limits: RequestLimits) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        ProblemError: 400 or 413, with what is wrong.
    """
    body = await request.body()
    if len(body) > limits.max_json_bytes:
        raise too_large(limits.max_json_bytes)
    return parse_json_object(body)


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object without numbers or characters that cannot be sent back.

    Raises:
        ProblemError: 400.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, "invalid_json", "the body is not JSON in UTF-8") from error
    if not isinstance(value, dict):
        raise ProblemError(400, "invalid_json", "the body is not a JSON object")
    return value


@asynccontextmanager
async def open_form(request: Request, limits: RequestLimits) -> AsyncGenerator[FormData]:
    """The body as a multipart form; its files are known by content, whatever they are called.

    Raises:
        ProblemError: 400, with what is wrong.
    """
    try:
        form = await request.form(
            max_files=limits.max_form_files,
            max_fields=limits.max_form_fields,
            max_part_size=limits.max_form_field_bytes,
        )
    except (HTTPException, MultiPartException) as error:
        raise ProblemError(400, "invalid_form", "the body is no multipart form") from error
    try:
        yield form
    finally:
        await form.close()


def text_fields(form: FormData, files: Collection[str]) -> dict[str, str]:
    """All text fields of a form.

    Raises:
        ProblemError: 400: a field comes twice, or a file where text is expected, or the reverse.
    """
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if name in files:
            continue
        if isinstance(value, UploadFile):
            raise ProblemError(400, "invalid_form", "a file in a field that takes none", param=name)
        if name in fields:
            raise ProblemError(400, "invalid_form", "a field that comes twice", param=name)
        fields[name] = value
    return fields


async def attached(form: FormData, name: str, limits: RequestLimits) -> bytes | None:
    """The bytes of a file in a form; None where there is none.

    Raises:
        ProblemError: 400 or 413: text instead of a file, several files, or a file that is too long.
    """
    values = [*form.getlist(name), *form.getlist(f"{name}[]")]
    if not values:
        return None
    if len(values) > 1:
        raise ProblemError(400, "invalid_form", f"there are {len(values)}: send one", param=name)
    (value,) = values
    if not isinstance(value, UploadFile):
        return None
    data = await value.read(limits.max_image_bytes + 1)
    if len(data) > limits.max_image_bytes:
        raise too_large(limits.max_image_bytes)
    return data


async def read_submission(
    request: Request, limits: RequestLimits, webhook_hosts: Sequence[str]
) -> Submission:
    """What `POST /v1/edits` asks for.

    Raises:
        ProblemError: the body is neither of both forms.
        InvalidRequestError: a field of ours is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return submission(await read_json(request, limits), webhook_hosts)
    if kind != "multipart/form-data":
        raise ProblemError(
            415,
            "unsupported_media_type",
            "send multipart/form-data with the picture, or application/json that names one",
        )
    async with open_form(request, limits) as form:
        image = await attached(form, "image", limits)
        mask = await attached(form, "mask", limits)
        files = [*_names("image", image), *_names("mask", mask)]
        fields: dict[str, Any] = dict(text_fields(form, files))
    if "parameters" in fields:
        fields["parameters"] = parse_json_object(fields["parameters"])
    return submission(fields, webhook_hosts, image, mask)


def submission(
    fields: Mapping[str, Any],
    webhook_hosts: Sequence[str],
    image: bytes | None = None,
    mask: bytes | None = None,
) -> Submission:
    """Sort a submission's own fields out from the edit's.

    Raises:
        ProblemError: 422, naming the field.
        InvalidRequestError: the webhook goes where none may.
    """
    priority = fields.get("priority", "interactive")
    if priority not in ("interactive", "batch"):
        _wrong("priority", "is 'interactive' or 'batch'")
    user = fields.get("user")
    if user is not None and not (isinstance(user, str) and 0 < len(user) <= 128):
        _wrong("user", "is a text of 1 to 128 characters")
    webhook = fields.get("webhook_url")
    if webhook is not None:
        if not isinstance(webhook, str):
            _wrong("webhook_url", "is a text")
        check_webhook(webhook, webhook_hosts)
    edit = {name: value for name, value in fields.items() if name not in _OURS}
    return Submission(edit, image, mask, priority, user, webhook)


def _names(name: str, file: bytes | None) -> tuple[str, ...]:
    """Fields in which a file was found."""
    return () if file is None else (name, f"{name}[]")


def _wrong(name: str, rule: str) -> NoReturn:
    raise ProblemError(422, "invalid_request", f"{name} {rule}", param=name)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
