"""The studio's web application: the page, its pictures, and the door where keys are asked for."""

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import gradio as gr
import httpx2
import jinja2
from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farm.errors import InvalidImageError
from farm.images import decode_image, encode_png
from serve.guard import stranger
from serve.pictures import picture_type
from serve.problems import problem_response
from serve.studio.client import ApiError
from serve.studio.page import STYLE, THEME, build_page
from serve.studio.panels import ROOT
from serve.studio.sessions import COOKIE, Sessions

_MOST_UPLOAD = "16mb"
_OPEN_PATHS = (f"{ROOT}/login",)
_SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    # Gradio compiles its templates in the browser; nothing comes from, or goes, elsewhere
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
}


def build_site(http: httpx2.AsyncClient, *, with_keys: bool) -> ASGIApp:
    """Everything under `/studio`.

    Args:
        http: with the API's address as its base; closed by whoever made it.
        with_keys: whether the API asks for keys, and the page therefore does.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_TEMP_DIR", tempfile.mkdtemp(prefix="editfarm-studio-"))
    sessions = Sessions(http, with_keys=with_keys)
    site = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_files(site, sessions)
    if with_keys:
        _add_door(site, sessions)
    gr.mount_gradio_app(
        site,
        build_page(sessions),
        path=ROOT,
        theme=THEME,
        css=STYLE,
        footer_links=[],
        run_history=False,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        show_error=False,
        max_file_size=_MOST_UPLOAD,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
    )
    return _StudioGuard(site, sessions)


class _StudioGuard:
    """Lets in this machine's own user, or visitors with a session; signs every response."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            scope = _with_whole_path(scope)
            response = self._refusal(scope)
            await (response or self._app)(scope, receive, _signed(send))
        else:  # Gradio needs no other protocol
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Scope) -> Response | None:
        if not self._sessions.with_keys:
            problem = stranger(scope, Headers(raw=scope["headers"]))
            return None if problem is None else problem_response(problem, None)
        if scope["path"].rstrip("/") in _OPEN_PATHS:
            return None
        request = Request(scope)
        if self._sessions.knows(request.cookies.get(COOKIE, "")):
            return None
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(f"{ROOT}/login", 303)
        return Response("sign in first", 401)


def _with_whole_path(scope: Scope) -> Scope:
    """Serve splits the address at its route prefix; our routes have it in them."""
    path, prefix = scope["path"], scope.get("root_path", "")
    whole = path if path.startswith(ROOT) else prefix + path
    return {**scope, "path": whole, "raw_path": quote(whole).encode(), "root_path": ""}


def _signed(send: Send) -> Send:
    async def signed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _SECURITY.items():
                headers.setdefault(name, value)
        await send(message)

    return signed


def _add_files(site: FastAPI, sessions: Sessions) -> None:
    """Pictures of edits, asked for with the visitor's own key."""

    @site.get(ROOT + "/files/{edit}/{name}")
    async def file(request: Request, edit: str, name: str) -> Response:
        visitor = request.cookies.get(COOKIE, "")
        try:
            data = await _file(sessions, visitor, edit, name)
        except ApiError as error:
            return Response(error.detail, error.status or 503, media_type="text/plain")
        kind = "application/json" if name.endswith(".json") else "application/octet-stream"
        if name == "image" or name.endswith(".png"):
            kind = picture_type(data)
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        # results never change; the browser may keep them for its own visitor
        headers = {"Cache-Control": "private, max-age=600", "ETag": tag}
        return Response(data, media_type=kind, headers=headers)


async def _file(sessions: Sessions, visitor: str, edit: str, name: str) -> bytes:
    if not edit.isalnum() or not name.replace(".", "").replace("_", "").isalnum():
        raise ApiError("there is no such file", "not_found", 404)
    api = sessions.api(visitor)
    if name == "image":
        return await api.picture(edit)
    mask = sessions.mask(visitor, edit)
    if name != "kept.png" or mask is None:
        return await api.output(edit, "edited.png" if name == "kept.png" else name)
    original, edited = await asyncio.gather(api.picture(edit), api.output(edit, "edited.png"))
    return await asyncio.to_thread(kept, original, edited, mask)


def kept(original: bytes, edited: bytes, mask: bytes) -> bytes:
    """The edited picture where the mask is white, the original's own pixels where it is black.

    Raises:
        ApiError: the mask is none, or of another size.
    """
    try:
        before, after = decode_image(original), decode_image(edited)
        where = decode_image(mask).image[:1]
    except InvalidImageError as error:
        raise ApiError(error.message, "invalid_mask", 422) from error
    if where.shape[-2:] != after.image.shape[-2:] or before.image.shape != after.image.shape:
        raise ApiError("the mask was painted for another picture", "invalid_mask", 422)
    mixed = where * after.image + (1 - where) * before.image
    return encode_png(mixed, alpha=before.alpha)


def _add_door(site: FastAPI, sessions: Sessions) -> None:
    """Where visitors show their keys."""

    @site.get(_OPEN_PATHS[0])
    async def ask() -> HTMLResponse:
        return HTMLResponse(_door(""))

    @site.post(_OPEN_PATHS[0])
    async def enter(request: Request, key: Annotated[str, Form(max_length=200)]) -> Response:
        try:
            name = await sessions.enter(key.strip())
        except ApiError as error:
            return HTMLResponse(_door(error.detail), 503)
        if name is None:
            return HTMLResponse(_door("That is no key of this farm, or it was revoked."), 401)
        response = RedirectResponse(f"{ROOT}/", 303)
        secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        response.set_cookie(
            COOKIE, name, path=ROOT, httponly=True, samesite="strict", secure=secure
        )
        return response

    @site.post(f"{ROOT}/logout")
    async def leave(request: Request) -> Response:
        sessions.leave(request.cookies.get(COOKIE, ""))
        response = RedirectResponse(_OPEN_PATHS[0], 303)
        response.delete_cookie(COOKIE, path=ROOT)
        return response


def _door(problem: str) -> str:
    path = Path(__file__).parent / "assets" / "door.html.j2"
    template = jinja2.Template(path.read_text(encoding="utf-8"), autoescape=True)
    return template.render(problem=problem, action=_OPEN_PATHS[0])
