"""What happens on the page: each handler asks the API as the visitor, and says what to show."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.components import Component

from serve.studio import panels
from serve.studio.client import FINAL, Api, ApiError
from serve.studio.form import Form, painter_panel
from serve.studio.samples import samples
from serve.studio.sessions import COOKIE, Sessions
from serve.studio.wishes import as_command, as_curl, as_python
from serve.views import EditView, Progress

Update = dict[Any, Any]


@dataclass(frozen=True)
class Results:
    """Components that show one edit."""

    status: gr.HTML
    picture: gr.HTML
    curl: gr.Code
    python: gr.Code
    command: gr.Code
    edit: gr.Button
    cancel: gr.Button
    again: gr.Button
    current: gr.State
    places: gr.Tabs

    @property
    def all(self) -> list[Component | gr.Tabs]:
        return [
            *(self.status, self.picture, self.curl, self.python, self.command),
            *(self.edit, self.cancel, self.again, self.current, self.places),
        ]


class Handlers:
    """Of one page.

    Args:
        sessions: who the visitors are.
        form: what they fill in.
        results: where an edit is shown.
    """

    def __init__(self, sessions: Sessions, form: Form, results: Results) -> None:
        self._sessions, self._form, self._results = sessions, form, results

    async def run(self, data: dict[Component, Any], request: gr.Request) -> AsyncIterator[Update]:
        """Submit the form, and show the edit until it ends."""
        shown, visitor = self._results, visitor_of(request)
        api = self._sessions.api(visitor)
        yield self._busy("")
        try:
            wish = self._form.wish(data)
            view = await api.submit(wish.submission())
            if wish.mask is not None and not wish.takes_mask:
                self._sessions.keep_mask(visitor, view.id, wish.mask)
            yield {shown.current: view.id, **self._snippets(view, request)}
            async for update in self._followed(api, visitor, view):
                yield update
        except ApiError as error:
            yield {**self._idle(), shown.status: panels.trouble(error)}

    async def open(self, event: gr.EventData, request: gr.Request) -> AsyncIterator[Update]:
        """Show an edit of the history, from where it is to its end."""
        shown, visitor = self._results, visitor_of(request)
        api = self._sessions.api(visitor)
        name = str(event.id)
        try:
            view = await api.edit(name)
            yield {
                **self._busy(name),
                shown.places: gr.Tabs(selected="edit"),
                **self._snippets(view, request),
            }
            async for update in self._followed(api, visitor, view):
                yield update
        except ApiError as error:
            yield {**self._idle(), shown.status: panels.trouble(error)}

    async def cancel(self, name: str, request: gr.Request) -> Any:
        """Ask for an end; whoever follows the edit shows it."""
        if name:
            with suppress(ApiError):  # it ended meanwhile, or is told by who follows
                await self._sessions.api(visitor_of(request)).cancel(name)
        return gr.Button(interactive=False, value="Cancelling…")

    async def again(self, name: str, request: gr.Request) -> Update:
        """Fill the form as it was for an edit."""
        api = self._sessions.api(visitor_of(request))
        try:
            view = await api.edit(name)
            picture = await api.picture(name)
        except ApiError as error:
            return {self._results.status: panels.trouble(error)}
        return {
            **self._form.filled(view.request),
            self._form.picture: written(picture),
            self._results.places: gr.Tabs(selected="edit"),
        }

    def sample(self, event: gr.EventData) -> list[Any]:
        """Picture and words of a sample scene."""
        sample = samples()[int(event.index)]
        path = written(sample.picture)
        return [path, sample.source_prompt, sample.target_prompt, sample.target_word]

    def paint(self, event: gr.EventData) -> str:
        """The mask after a stroke."""
        return str(event.mask)

    def new_picture(self, path: str | None) -> tuple[str, str]:
        """An empty mask over another picture."""
        if not path:
            return painter_panel(None), ""
        return painter_panel(f"{panels.ROOT}/gradio_api/file={quote(path)}"), ""

    async def _followed(self, api: Api, visitor: str, view: EditView) -> AsyncIterator[Update]:
        shown, curve, seen = self._results, panels.Curve(), None
        if view.state not in FINAL:
            ready = await api.ready()
            yield {
                shown.picture: panels.working(view),
                shown.status: panels.progress_panel(view, curve, ready=ready),
            }
            async for found in api.follow(view.id):
                if isinstance(found, Progress):
                    view = view.model_copy(update={"progress": found, "state": "running"})
                else:
                    view = found
                if view.progress is not None:
                    curve.add(view.progress)
                if view.state not in FINAL:
                    update: Update = {shown.status: panels.progress_panel(view, curve)}
                    link = None if view.progress is None else view.progress.preview
                    if link not in (None, seen):
                        seen = link
                        with suppress(ApiError):  # it ended meanwhile
                            half_way = await api.preview(view.id)
                            update[shown.picture] = panels.working(view, half_way)
                    yield update
        if view.state == "done":
            kept = self._sessions.mask(visitor, view.id) is not None
            picture = panels.viewer(view, kept=kept)
            yield {**self._idle(), shown.picture: picture, shown.status: ""}
        else:
            yield {
                **self._idle(),
                shown.picture: panels.nothing_yet(),
                shown.status: panels.ended_without(view),
            }

    def _busy(self, name: str) -> Update:
        shown = self._results
        return {
            shown.current: name,
            shown.status: "",
            shown.edit: gr.Button(interactive=False),
            shown.cancel: gr.Button(interactive=True, value="Cancel"),
            shown.again: gr.Button(visible=False),
        }

    def _idle(self) -> Update:
        shown = self._results
        return {
            shown.edit: gr.Button(interactive=True),
            shown.cancel: gr.Button(interactive=False, value="Cancel"),
            shown.again: gr.Button(visible=True),
        }

    def _snippets(self, view: EditView, request: gr.Request) -> Update:
        shown, url = self._results, public_url(request)
        with_key = self._sessions.with_keys
        return {
            shown.curl: as_curl(view.request, url, with_key=with_key),
            shown.python: as_python(view.request, url, with_key=with_key),
            shown.command: as_command(view.request),
        }


def visitor_of(request: gr.Request) -> str:
    """The visitor's session, or an empty name."""
    return "" if request.request is None else request.request.cookies.get(COOKIE, "")


def public_url(request: gr.Request) -> str:
    """Where the visitor's browser found us, and other programs will."""
    headers = request.headers
    scheme = headers.get("x-forwarded-proto", "http")
    return f"{scheme}://{headers.get('host', '127.0.0.1:8000')}"


def written(picture: bytes) -> str:
    """A file that Gradio may show."""
    with tempfile.NamedTemporaryFile(suffix=".png", delete=False) as file:
        file.write(picture)
    return str(Path(file.name))
