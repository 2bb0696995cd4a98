"""`/v1/jobs`: many edits by one manifest that lies in a configured store."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from farm.requests import describe
from serve.forms import read_json
from serve.gate import Caller
from serve.openapi import problems
from serve.problems import ProblemError
from serve.routes_edits import After, Limit
from serve.services import Services
from serve.views import JobPage, JobView, job_view

JobId = Annotated[str, Path(pattern=r"^j[0-9a-f]{27}$", examples=["j" + "0" * 27])]


class JobRequest(BaseModel):
    """What to submit."""

    model_config = ConfigDict(extra="forbid")

    manifest: Annotated[str, Field(min_length=1, max_length=1024)]
    """`<store>://<key>` of a JSONL file; each line is an edit whose `image` is named likewise, or
    relative to the manifest."""
    max_in_flight: Annotated[int, Field(ge=1, le=64)] = 8


def job_routes(services: Services) -> APIRouter:
    """Routes of jobs."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    body = {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": JobRequest.model_json_schema(),
                    "example": {"manifest": "photos://2026/edits.jsonl", "max_in_flight": 8},
                }
            },
        }
    }

    @routes.post(
        "",
        status_code=202,
        response_model=JobView,
        responses=problems(400, 429),
        openapi_extra=body,
    )
    async def submit(request: Request, tenant: Caller) -> dict[str, Any]:
        """Submit a manifest; its lines run with low priority."""
        fields = await read_json(request, services.settings.limits)
        try:
            wanted = JobRequest.model_validate(fields)
        except ValidationError as error:
            raise ProblemError(422, "invalid_request", describe(error)) from error
        return job_view(await services.batches.open(tenant, wanted.manifest, wanted.max_in_flight))

    @routes.get("", response_model=JobPage, responses=problems())
    async def list_jobs(tenant: Caller, after: After = "", limit: Limit = 20) -> dict[str, Any]:
        """Jobs, the newest first."""
        jobs, cursor = await services.batches.page(tenant, after=after, limit=limit)
        return {"data": [job_view(job) for job in jobs], "next_cursor": cursor}

    @routes.get("/{job_id}", response_model=JobView, responses=problems(404))
    async def status(tenant: Caller, job_id: JobId) -> dict[str, Any]:
        """How many of its edits are in which state; list them with `/v1/edits?job=`."""
        return job_view(await services.batches.read(tenant, job_id))

    @routes.post("/{job_id}/cancel", response_model=JobView, responses=problems(404))
    async def cancel(tenant: Caller, job_id: JobId) -> dict[str, Any]:
        """Start no further edit of it, and cancel those that run."""
        return job_view(await services.batches.cancel(tenant, job_id))

    return routes
