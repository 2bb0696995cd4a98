"""History and batches: lists that are read anew when somebody looks at them."""

from typing import Any

import gradio as gr

from serve.studio import panels
from serve.studio.client import Api, ApiError
from serve.studio.handlers import visitor_of
from serve.studio.sessions import Sessions


class Lists:
    """What the two further places of the page show.

    Args:
        sessions: who the visitors are.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def history(self, after: str, job: str, request: gr.Request) -> tuple[str, str, Any, str]:
        """A page of edits, the newest first.

        Args:
            after: where to go on; empty at the newest.
            job: the batch whose edits are wanted; empty for all.
            request: whose.

        Returns:
            The grid, where to go on, the button that does, and whose edits these are.
        """
        try:
            page = await self._api(request).page(after=after, job=job)
        except ApiError as error:
            return panels.trouble(error), "", gr.Button(visible=False), job
        older = page.next_cursor or ""
        return panels.history_grid(page.data), older, gr.Button(visible=bool(older)), job

    async def newest(self, request: gr.Request) -> tuple[str, str, Any, str]:
        """The first page of all."""
        return await self.history("", "", request)

    async def of_job(
        self, event: gr.EventData, request: gr.Request
    ) -> tuple[str, str, Any, str, Any]:
        """The first page of a batch, in the history's place."""
        job = str(event.id)
        return *await self.history("", job, request), gr.Tabs(selected="history")

    async def jobs(self, request: gr.Request) -> str:
        """All batches with their progress."""
        try:
            return panels.jobs_list((await self._api(request).jobs()).data)
        except ApiError as error:
            return panels.trouble(error)

    async def start_job(
        self, manifest: str, max_in_flight: float | None, request: gr.Request
    ) -> tuple[str, str]:
        """Submit a manifest.

        Returns:
            What is wrong, and the batches.
        """
        try:
            await self._api(request).open_job(manifest.strip(), int(max_in_flight or 8))
        except ApiError as error:
            return panels.trouble(error), await self.jobs(request)
        return "", await self.jobs(request)

    async def cancel_job(self, event: gr.EventData, request: gr.Request) -> str:
        """End a batch."""
        try:
            await self._api(request).cancel_job(str(event.id))
        except ApiError as error:
            return panels.trouble(error)
        return await self.jobs(request)

    def _api(self, request: gr.Request) -> Api:
        return self._sessions.api(visitor_of(request))
