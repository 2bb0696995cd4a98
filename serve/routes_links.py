"""Signed links and presigned uploads."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from serve.gate import Caller
from serve.openapi import problems
from serve.problems import ConflictError
from serve.routes_edits import EditId, file_response
from serve.services import Services
from serve.transfers import presign_upload


def link_routes(services: Services) -> APIRouter:
    """Routes of links and uploads."""
    routes = APIRouter(prefix="/v1", tags=["transfers"])

    @routes.get("/links/{edit_id}/{name}", response_class=Response, responses=problems(404, 409))
    async def linked(
        edit_id: EditId,
        name: str,
        tenant: Annotated[str, Query(max_length=63)],
        expires: Annotated[int, Query(ge=0, le=2**40)],
        signature: Annotated[str, Query(max_length=64)],
    ) -> Response:
        """An output for whoever holds a link to it; no key is asked for."""
        services.gate.check_link(tenant, edit_id, name, expires, signature)
        return file_response(name, await services.edits.output(tenant, edit_id, name))

    @routes.post("/uploads", status_code=201, responses=problems(409, 429))
    async def upload(tenant: Caller) -> dict[str, Any]:
        """Where to post a picture directly into an S3 store, and its name for a submission."""
        await services.batches.charge(tenant, "upload")
        most = services.settings.limits.max_image_bytes
        found = await asyncio.to_thread(presign_upload, services.ledger.store, tenant, most)
        if found is None:
            raise ConflictError(
                "no_direct_uploads", "this farm's store takes none: attach the picture instead"
            )
        return found

    return routes
