"""The HTTP application, which knows no Ray: it is given everything that it works with."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from farm.errors import FarmError
from serve.guard import Guard
from serve.problems import ProblemError, problem_of, problem_response
from serve.routes_edits import edit_routes
from serve.routes_health import health_routes, model_routes
from serve.routes_jobs import job_routes
from serve.routes_links import link_routes
from serve.routes_openai import openai_routes
from serve.services import Services

_log = logging.getLogger("editfarm.serve")

_CODES = {404: "not_found", 405: "method_not_allowed"}
_MOST_COMPLAINTS = 5


def build_app(services: Services) -> ASGIApp:
    """The application with everything around it."""
    return Guard(
        build_api(services),
        services.settings.limits,
        services.metrics,
        loopback_only=services.gate.is_open,
    )


def build_api(services: Services) -> FastAPI:
    """Routes and error handlers."""
    api = FastAPI(
        title="edit farm",
        version="1",
        description="Text-driven edits of pictures. Errors are RFC 9457 problem details.",
        docs_url=None,  # both would load scripts from elsewhere
        redoc_url=None,
    )
    api.state.gate = services.gate
    for routes in (edit_routes, openai_routes, model_routes, job_routes, link_routes):
        api.include_router(routes(services))
    api.include_router(health_routes(services))
    api.add_exception_handler(ProblemError, _on_problem)
    api.add_exception_handler(FarmError, _on_farm_error)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(HTTPException, _on_http)
    api.add_exception_handler(Exception, _on_unforeseen)
    return api


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return problem_response(error, request.state.request_id)


async def _on_farm_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FarmError)
    problem = problem_of(error)
    if problem.status >= 500:
        _log.error("%s: %s", request.state.request_id, error.message)
    return problem_response(problem, request.state.request_id)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    complaints = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors()[:_MOST_COMPLAINTS]
    ]
    problem = ProblemError(422, "invalid_request", "; ".join(complaints))
    return problem_response(problem, request.state.request_id)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    headers = dict(error.headers or {})
    problem = ProblemError(error.status_code, code, str(error.detail), headers=headers)
    return problem_response(problem, request.state.request_id)


async def _on_unforeseen(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s: unforeseen", request.state.request_id, exc_info=error)
    problem = ProblemError(500, "internal", "the farm is at fault; its log has the request id")
    return problem_response(problem, request.state.request_id)
