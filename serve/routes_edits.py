"""`/v1/edits`."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from farm.runner import load_result
from serve.edits import Filter
from serve.events import edit_events
from serve.forms import read_submission
from serve.gate import Caller
from serve.openapi import SUBMIT_BODY, problems
from serve.pictures import PICTURES, picture_type
from serve.preferences import wait_seconds
from serve.problems import ConflictError, NotFoundError, ProblemError
from serve.records import State
from serve.services import Services
from serve.views import EditPage, EditView, edit_view

EditId = Annotated[str, Path(pattern=r"^e[0-9a-f]{27}$", examples=["e" + "0" * 27])]
After = Annotated[str, Query(pattern=r"^$|^[ej][0-9a-f]{27}$", description="`next_cursor`.")]
Limit = Annotated[int, Query(ge=1, le=100)]
Word = Annotated[str | None, Query(max_length=128)]
_MEDIA = {
    "png": "image/png",
    "json": "application/json",
    "safetensors": "application/octet-stream",
}


def edit_routes(services: Services) -> APIRouter:
    """Routes of edits."""
    routes = APIRouter(prefix="/v1/edits", tags=["edits"])
    edits, watcher, settings = services.edits, services.watcher, services.settings

    @routes.post(
        "",
        status_code=202,
        response_model=EditView,
        responses={**problems(400, 409, 415, 429), 200: {"model": EditView}},
        openapi_extra=SUBMIT_BODY,
    )
    async def submit(
        request: Request,
        tenant: Caller,
        prefer: Annotated[str, Header(max_length=200)] = "",
        idempotency_key: Annotated[
            str | None, Header(min_length=1, max_length=255, pattern=r"^[!-~]+$")
        ] = None,
    ) -> Response:
        """Submit an edit. 202 means that it is accepted and outlives any crash."""
        submission = await read_submission(request, settings.limits, settings.webhook_hosts)
        try:
            record, _ = await edits.submit(tenant, submission, idempotency_key=idempotency_key)
        except ProblemError as error:
            services.metrics.refused.labels(error.code).inc()
            raise
        services.metrics.accepted.inc()
        request.scope["path_params"] = {"edit_id": record.id}  # for the access log
        seconds = wait_seconds(prefer, settings.limits.max_wait_seconds)
        step = None
        headers = {"Location": f"/v1/edits/{record.id}"}
        if seconds:
            record, step = await watcher.wait(tenant, record.id, seconds)
            headers["Preference-Applied"] = f"wait={seconds}"
        status = 200 if record.is_final else 202
        return JSONResponse(edit_view(record, step), status, headers)

    @routes.get("", response_model=EditPage, responses=problems())
    async def list_edits(
        tenant: Caller,
        state: State | None = None,
        method: Word = None,
        job: Word = None,
        user: Word = None,
        after: After = "",
        limit: Limit = 20,
    ) -> dict[str, Any]:
        """Edits, the newest first. A page may be short, or empty, and still have a next one."""
        wanted = Filter(state, method, job, user)
        records, cursor = await edits.page(tenant, wanted, after=after, limit=limit)
        return {"data": [edit_view(record) for record in records], "next_cursor": cursor}

    @routes.get("/{edit_id}", response_model=EditView, responses=problems(404))
    async def status(
        tenant: Caller, edit_id: EditId, prefer: Annotated[str, Header(max_length=200)] = ""
    ) -> dict[str, Any]:
        """An edit as it is now, or with `Prefer: wait=N` at its end."""
        seconds = wait_seconds(prefer, settings.limits.max_wait_seconds)
        found = (
            await watcher.wait(tenant, edit_id, seconds)
            if seconds
            else await watcher.look(tenant, edit_id)
        )
        return edit_view(*found)

    @routes.get("/{edit_id}/result", responses=problems(404, 409))
    async def result(tenant: Caller, edit_id: EditId) -> dict[str, Any]:
        """Where the result comes from and what it cost: seeds, versions, weights, work, times."""
        record, _ = await watcher.look(tenant, edit_id)
        if record.state != "done":
            raise ConflictError("not_done", f"the edit is {record.state}: it has no result")
        store = services.ledger.store
        found = await asyncio.to_thread(load_result, store, tenant, record.edit_id)
        if found is None:
            raise NotFoundError("result")
        outputs = edit_view(record)["outputs"]
        return {
            "id": record.id,
            "edit_id": record.edit_id,
            "outputs": outputs,
            "provenance": found.provenance.model_dump(mode="json"),
        }

    @routes.get(
        "/{edit_id}/image",
        response_class=Response,
        responses={
            **problems(404),
            200: {"content": {kind: {} for kind in PICTURES}, "description": "The picture."},
        },
    )
    async def picture(tenant: Caller, edit_id: EditId) -> Response:
        """The picture that was handed in, as it was handed in."""
        data = await edits.picture(tenant, edit_id)
        return Response(data, media_type=picture_type(data))

    @routes.get(
        "/{edit_id}/outputs/{name}",
        response_class=Response,
        responses={
            **problems(404, 409),
            200: {"content": {kind: {} for kind in _MEDIA.values()}, "description": "The file."},
        },
    )
    async def output(tenant: Caller, edit_id: EditId, name: str) -> Response:
        """One output, by its name: edited.png, mask.png, attention.png, metrics.json and others."""
        return file_response(name, await edits.output(tenant, edit_id, name))

    @routes.get("/{edit_id}/outputs/{name}/link", responses=problems(404, 409))
    async def link(request: Request, tenant: Caller, edit_id: EditId, name: str) -> dict[str, str]:
        """An address that gives this output to whoever has it, for an hour."""
        return {"url": await edits_link(services, request, tenant, edit_id, name)}

    @routes.get(
        "/{edit_id}/preview",
        response_class=Response,
        responses={
            **problems(404),
            200: {
                "description": "At most 256 pixels wide and high.",
                "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
            },
        },
    )
    async def preview(
        tenant: Caller,
        edit_id: EditId,
        picture: Annotated[
            str, Query(max_length=64, description="As `progress` has it; any, for the latest.")
        ] = "",
    ) -> Response:
        """The picture as it stands half-way; 404 while there is none.

        Being asked for, pictures are made for some seconds: ask again.
        """
        del picture  # tells a browser's cache one picture from the next
        found = await watcher.preview(tenant, edit_id)
        return Response(found, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    @routes.post("/{edit_id}/cancel", response_model=EditView, responses=problems(404))
    async def cancel(tenant: Caller, edit_id: EditId) -> dict[str, Any]:
        """Stop an edit: at once if it waits, else between two steps. Again is no error."""
        return edit_view(await edits.cancel(tenant, edit_id))

    @routes.post(
        "/{edit_id}/retry",
        status_code=202,
        response_model=EditView,
        responses=problems(404, 409, 429),
    )
    async def retry(tenant: Caller, edit_id: EditId) -> dict[str, Any]:
        """Queue a failed or cancelled edit again; what it had trained is used."""
        return edit_view(await edits.retry(tenant, edit_id))

    @routes.delete("/{edit_id}", status_code=204, responses=problems(404, 409))
    async def delete(tenant: Caller, edit_id: EditId) -> Response:
        """Forget an edit that has ended, with what derives from it alone."""
        await edits.delete(tenant, edit_id)
        return Response(status_code=204)

    @routes.get(
        "/{edit_id}/events",
        response_class=StreamingResponse,
        responses={
            **problems(404, 429),
            200: {
                "description": "`state`, `progress`, and last the end's name.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
        },
    )
    async def events(tenant: Caller, edit_id: EditId, previews: bool = True) -> StreamingResponse:
        """Server-Sent Events until the edit has ended.

        While somebody listens, the edit shows pictures of itself, unless `previews` is false.
        """
        await watcher.look(tenant, edit_id)
        services.listeners.check(tenant)
        stream = edit_events(watcher, tenant, edit_id, services.listeners, previews=previews)
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    return routes


def file_response(name: str, data: bytes) -> Response:
    """An output as what it is, for saving and never for running."""
    kind = _MEDIA.get(name.rpartition(".")[2], "application/octet-stream")
    return Response(
        data, media_type=kind, headers={"Content-Disposition": f'inline; filename="{name}"'}
    )


async def edits_link(
    services: Services, request: Request, tenant: str, name: str, file: str
) -> str:
    """An address of one output: the store's own where it can sign, else this server's."""
    presigned = await services.edits.presigned(tenant, name, file)
    if presigned is not None:
        return presigned
    return str(request.base_url).rstrip("/") + services.gate.link(tenant, name, file)
