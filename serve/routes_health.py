"""`/healthz`, `/readyz`, `/metrics`, `/v1/models`."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from farm.requests import METHODS
from serve.gate import Caller
from serve.openapi import problems
from serve.problems import BusyError, NotFoundError
from serve.services import Services


def health_routes(services: Services) -> APIRouter:
    """Routes that tell how this replica is; they need no key and tell nothing of anybody."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """This replica answers."""
        return {"status": "ok"}

    @routes.get("/readyz", responses=problems(503))
    async def readyz() -> JSONResponse:
        """Whether a warmed backbone answers, so that edits accepted now are started now."""
        if not await services.door.ready():
            raise BusyError("no backbone is ready yet")
        return JSONResponse({"status": "ready"})

    @routes.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Figures of this replica, in Prometheus's format."""
        snapshot = await services.watcher.snapshot()
        services.metrics.queued.set(snapshot.queued)
        services.metrics.running.set(len(snapshot.running))
        return Response(services.metrics.text(), media_type="text/plain; version=0.0.4")

    return routes


def model_routes(services: Services) -> APIRouter:
    """`/v1/models`, as OpenAI's clients read it."""
    routes = APIRouter(prefix="/v1/models", tags=["openai"])
    models = [_model(f"{services.intake.model_set.name}/{method}") for method in METHODS]

    @routes.get("", responses=problems())
    async def list_models(tenant: Caller) -> dict[str, Any]:
        """A model set with each method."""
        del tenant
        return {"object": "list", "data": models}

    @routes.get("/{name:path}", responses=problems(404))
    async def model(tenant: Caller, name: str) -> dict[str, Any]:
        """One of them."""
        del tenant
        for found in models:
            if found["id"] == name:
                return found
        raise NotFoundError("model")

    return routes


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "editfarm"}
