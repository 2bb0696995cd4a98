"""`/v1/images/edits`, as OpenAI's clients call it; our own options come by `extra_body`.

`prompt` says what the picture shall show, and `source_prompt` what it shows: these methods invert
the picture under a description of it, so one must be given; none is made up.
"""

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from farm.requests import METHODS
from serve.events import event, with_heartbeats
from serve.forms import attached, open_form, parse_json_object, submission, text_fields
from serve.gate import Caller
from serve.intake import Submission
from serve.openapi import OPENAI_BODY, problems
from serve.pictures import Wish, check_mask, drawn_mask, finished, parse_size, partial
from serve.problems import ProblemError, problem_body
from serve.records import EditRecord
from serve.routes_edits import edits_link
from serve.services import Services

_WAIT_SECONDS = 600.0
_MOST = 10
_MOST_PARTIAL = 3
_HEARTBEAT_SECONDS = 15.0
_PARAMETER = re.compile(r"parameters\[([a-z_]{1,64})\]")
_TAKE_MASKS = ("edit_infinity",)
"""Methods that use a mask themselves; what it keeps is put back for all."""
_IGNORED = ("background", "quality", "input_fidelity", "moderation")
"""Of OpenAI's own models; they change nothing here."""


@dataclass(frozen=True)
class _Order:
    """What one call asks for."""

    submissions: tuple[Submission, ...]
    image: bytes
    mask: bytes | None
    wish: Wish
    by_url: bool
    stream: bool
    partial_images: int


def openai_routes(services: Services) -> APIRouter:
    """Routes of OpenAI's image API."""
    routes = APIRouter(prefix="/v1/images", tags=["openai"])

    @routes.post(
        "/edits",
        responses=problems(400, 404, 429),
        response_model=None,
        openapi_extra=OPENAI_BODY,
    )
    async def edit(request: Request, tenant: Caller) -> Response:
        """Edit a picture and wait for the result."""
        order = await _read_order(request, services)
        records = [(await services.edits.submit(tenant, s))[0] for s in order.submissions]
        services.metrics.accepted.inc(len(records))
        call = _Call(services, request, tenant, order)
        if order.stream:
            return StreamingResponse(call.events(records), media_type="text/event-stream")
        data = await asyncio.gather(*(call.item(record) for record in records))
        return JSONResponse(
            {
                "created": int(time.time()),
                "data": data,
                "output_format": order.wish.file_format,
            }
        )

    return routes


class _Call:
    """One call, after its edits are accepted."""

    def __init__(self, services: Services, request: Request, tenant: str, order: _Order) -> None:
        self._services, self._request = services, request
        self._tenant, self._order = tenant, order

    async def item(self, record: EditRecord) -> dict[str, Any]:
        """One entry of `data`, when its edit has ended."""
        await self._end(record)
        about = {"id": record.id, "revised_prompt": None}
        plain = self._order.wish == Wish() and self._order.mask is None
        if self._order.by_url and plain:
            link = await edits_link(
                self._services, self._request, self._tenant, record.id, "edited.png"
            )
            return {"url": link, **about}
        encoded = base64.b64encode(await self._picture(record)).decode("ascii")
        if self._order.by_url:
            return {"url": f"data:image/{self._order.wish.file_format};base64,{encoded}", **about}
        return {"b64_json": encoded, **about}

    async def events(self, records: list[EditRecord]) -> AsyncIterator[bytes]:
        """An event for each picture, after some of it half-way; then none: the stream ends."""

        async def completed() -> AsyncIterator[bytes]:
            for record in records:
                try:
                    async for half_way in self._partial(record):
                        yield half_way
                    await self._end(record)
                    picture = await self._picture(record)
                except ProblemError as error:
                    body = problem_body(error, self._request.state.request_id)
                    yield event("error", {"type": "error", "error": body})
                    return
                yield event("image_edit.completed", self._completed(picture))

        async for found in with_heartbeats(completed(), _HEARTBEAT_SECONDS):
            yield b": still here\n\n" if found is None else found

    async def _partial(self, record: EditRecord) -> AsyncIterator[bytes]:
        """The first pictures of an edit on its way, as many as are wished for, as they come."""
        order, sent = self._order, 0
        if not order.partial_images:
            return
        follow = self._services.watcher.follow(self._tenant, record.id, previews=True)
        deadline, seen = time.monotonic() + _WAIT_SECONDS, None
        while sent < order.partial_images:
            try:
                found = await asyncio.wait_for(anext(follow, None), deadline - time.monotonic())
            except TimeoutError:
                return
            if found is None:
                return
            preview = None if found[1] is None else found[1].preview
            if preview is not None and preview != seen:
                picture = await self._services.edits.on_pictures(
                    partial, preview, order.wish, original=order.image, mask=order.mask
                )
                about = {"partial_image_index": sent, **self._about(picture)}
                yield event(
                    "image_edit.partial_image", {"type": "image_edit.partial_image", **about}
                )
                seen, sent = preview, sent + 1

    def _completed(self, picture: bytes) -> dict[str, Any]:
        return {"type": "image_edit.completed", **self._about(picture), "usage": None}

    def _about(self, picture: bytes) -> dict[str, Any]:
        size = self._order.wish.size
        return {
            "b64_json": base64.b64encode(picture).decode("ascii"),
            "created_at": int(time.time()),
            "size": "auto" if size is None else f"{size[0]}x{size[1]}",
            "output_format": self._order.wish.file_format,
            "background": "auto",
            "quality": "auto",
        }

    async def _end(self, record: EditRecord) -> None:
        ended, _ = await self._services.watcher.wait(self._tenant, record.id, _WAIT_SECONDS)
        if ended.failure is not None:
            status = 422 if ended.failure.code.startswith("invalid") else 500
            raise ProblemError(status, ended.failure.code, ended.failure.detail)
        if not ended.is_final:
            detail = f"the edit goes on: ask for /v1/edits/{record.id} later"
            raise ProblemError(503, "still_running", detail)

    async def _picture(self, record: EditRecord) -> bytes:
        edited = await self._services.edits.output(self._tenant, record.id, "edited.png")
        order = self._order
        return await self._services.edits.on_pictures(
            finished, edited, order.wish, original=order.image, mask=order.mask
        )


async def _read_order(request: Request, services: Services) -> _Order:
    limits = services.settings.limits
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ProblemError(415, "unsupported_media_type", "send multipart/form-data")
    async with open_form(request, limits) as form:
        image = await attached(form, "image", limits)
        mask = await attached(form, "mask", limits)
        fields = text_fields(form, ("image", "image[]", "mask", "mask[]"))
    if image is None:
        raise ProblemError(422, "missing_image", "attach the picture as `image`", param="image")
    if mask is not None:
        await services.edits.on_pictures(check_mask, mask, image, limits)
    wish = Wish(
        _choice(fields, "output_format", ("png", "jpeg", "webp")),
        parse_size(fields.pop("size", "auto"), limits),
        _whole(fields, "output_compression", None, 0, 100),
    )
    by_url = _choice(fields, "response_format", ("b64_json", "url")) == "url"
    stream = _choice(fields, "stream", ("false", "true")) == "true"
    count = _whole(fields, "n", 1, 1, min(_MOST, limits.max_edits)) or 1
    partial_images = _whole(fields, "partial_images", 0, 0, _MOST_PARTIAL) or 0
    for name in _IGNORED:
        fields.pop(name, None)
    submissions = await _submissions(fields, image, mask, count, services)
    return _Order(submissions, image, mask, wish, by_url, stream, partial_images)


async def _submissions(
    fields: dict[str, str], image: bytes, mask: bytes | None, count: int, services: Services
) -> tuple[Submission, ...]:
    """`n` edits that differ in their seeds."""
    if "source_prompt" not in fields:
        raise ProblemError(
            422,
            "missing_source_prompt",
            "say what the picture shows: extra_body={'source_prompt': '…'}; `prompt` is what it "
            "shall show",
            param="source_prompt",
        )
    if "prompt" not in fields:
        raise ProblemError(422, "missing_prompt", "say what it shall show", param="prompt")
    edit: dict[str, Any] = {**fields, "target_prompt": fields["prompt"]}
    del edit["prompt"]
    edit |= _method(edit.pop("model", None), edit.get("method"), services)
    parameters = _parameters(edit)
    if parameters:
        edit["parameters"] = parameters
    seed = _whole(edit, "seed", 0, 0, 2**32 - count) or 0
    hosts = services.settings.webhook_hosts
    drawn = None
    if mask is not None and edit.get("method") in _TAKE_MASKS:
        drawn = await services.edits.on_pictures(drawn_mask, mask)
    return tuple(
        submission({**edit, "seed": seed + number}, hosts, image, drawn) for number in range(count)
    )


def _method(model: str | None, method: str | None, services: Services) -> dict[str, str]:
    """`model` names a model set, a method, or both with a slash between them."""
    served = services.intake.model_set.name
    if model is None or model == served:
        return {}
    named = model.removeprefix(f"{served}/")
    if named not in METHODS:
        detail = f"no model {model!r:.80}; /v1/models lists them"
        raise ProblemError(404, "model_not_found", detail, param="model")
    if method not in (None, named):
        raise ProblemError(
            422, "invalid_request", f"model says {named}, method {method!r:.80}", param="method"
        )
    return {"method": named}


def _parameters(edit: dict[str, Any]) -> Mapping[str, Any]:
    """As JSON in one field, or as OpenAI's client sends a mapping: a field for each."""
    found: dict[str, Any] = {}
    if "parameters" in edit:
        found |= parse_json_object(edit.pop("parameters"))
    for field in list(edit):
        match = _PARAMETER.fullmatch(field)
        if match:
            found[match.group(1)] = _value(edit.pop(field))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _choice(fields: dict[str, str], name: str, possible: tuple[Any, ...]) -> Any:
    """One of some words; the first where none is given."""
    value = fields.pop(name, possible[0])
    if value not in possible:
        detail = f"{name} is one of {', '.join(possible)}"
        raise ProblemError(422, "invalid_request", detail, param=name)
    return value


def _whole(
    fields: dict[str, Any], name: str, default: int | None, least: int, most: int
) -> int | None:
    """A whole number within bounds."""
    text = fields.pop(name, None)
    if text is None:
        return default
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else least - 1
    if not least <= value <= most:
        detail = f"{name} is a whole number from {least} to {most}"
        raise ProblemError(422, "invalid_request", detail, param=name)
    return value
