"""The public HTTP API as a typed client; all that the studio knows of the farm."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from serve.views import EditPage, EditView, JobPage, JobView, Progress

FINAL = frozenset({"done", "failed", "cancelled", "deleted"})

_View = TypeVar("_View", bound=BaseModel)
_PATIENCE = httpx2.Timeout(30, read=60)
_LISTENING = httpx2.Timeout(30, read=None)


class ApiError(Exception):
    """The API said no, in words for people.

    Attributes:
        code: what programs tell errors apart by.
        status: of the response; 0 where there was none.
    """

    def __init__(self, detail: str, code: str = "unreachable", status: int = 0) -> None:
        super().__init__(detail)
        self.detail, self.code, self.status = detail, code, status


@dataclass(frozen=True)
class Submission:
    """What is submitted.

    Attributes:
        picture: bytes of a PNG, JPEG or WebP.
        fields: of the form, without the files.
        mask: of the picture's size; white is edited.
    """

    picture: bytes
    fields: Mapping[str, str]
    mask: bytes | None = None


class Api:
    """Calls of one visitor.

    Args:
        http: with the API's address as its base.
        key: the visitor's own; None where no keys are asked for.
    """

    def __init__(self, http: httpx2.AsyncClient, key: str | None) -> None:
        self._http = http
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def submit(self, wanted: Submission) -> EditView:
        """Submit an edit; it is accepted when this returns."""
        files = {"image": ("picture", wanted.picture)}
        if wanted.mask is not None:
            files["mask"] = ("mask.png", wanted.mask)
        return await self._view(
            EditView, "POST", "/v1/edits", data=dict(wanted.fields), files=files
        )

    async def edit(self, name: str) -> EditView:
        return await self._view(EditView, "GET", f"/v1/edits/{name}")

    async def page(self, *, after: str = "", job: str = "", limit: int = 24) -> EditPage:
        """Edits, the newest first."""
        query = {"after": after, "limit": str(limit), **({"job": job} if job else {})}
        return await self._view(EditPage, "GET", "/v1/edits", params=query)

    async def cancel(self, name: str) -> EditView:
        return await self._view(EditView, "POST", f"/v1/edits/{name}/cancel")

    async def retry(self, name: str) -> EditView:
        return await self._view(EditView, "POST", f"/v1/edits/{name}/retry")

    async def delete(self, name: str) -> None:
        await self._ask("DELETE", f"/v1/edits/{name}")

    async def picture(self, name: str) -> bytes:
        """The picture that was handed in."""
        return (await self._ask("GET", f"/v1/edits/{name}/image")).content

    async def preview(self, name: str) -> bytes:
        """The picture as it stands half-way."""
        return (await self._ask("GET", f"/v1/edits/{name}/preview")).content

    async def output(self, name: str, file: str) -> bytes:
        return (await self._ask("GET", f"/v1/edits/{name}/outputs/{file}")).content

    async def result(self, name: str) -> dict[str, Any]:
        """Where the result comes from and what it cost."""
        return (await self._ask("GET", f"/v1/edits/{name}/result")).json()

    async def open_job(self, manifest: str, max_in_flight: int) -> JobView:
        body = {"manifest": manifest, "max_in_flight": max_in_flight}
        return await self._view(JobView, "POST", "/v1/jobs", json=body)

    async def jobs(self, limit: int = 20) -> JobPage:
        return await self._view(JobPage, "GET", "/v1/jobs", params={"limit": str(limit)})

    async def cancel_job(self, name: str) -> JobView:
        return await self._view(JobView, "POST", f"/v1/jobs/{name}/cancel")

    async def knows_me(self) -> bool:
        """Whether the key is one."""
        try:
            await self._ask("GET", "/v1/models")
        except ApiError as error:
            if error.status == 401:
                return False
            raise
        return True

    async def ready(self) -> bool:
        """Whether edits start at once."""
        try:
            await self._ask("GET", "/readyz")
        except ApiError:
            return False
        return True

    async def follow(self, name: str) -> AsyncIterator[EditView | Progress]:
        """An edit whenever its state changes and each of its steps; ends with its end.

        A stream that breaks is opened again: it begins with the state as it is.
        """
        while True:
            async with self._stream(f"/v1/edits/{name}/events") as lines:
                async for kind, data in _events(lines):
                    if kind == "progress":
                        yield Progress.model_validate_json(data)
                    elif kind == "deleted":
                        raise ApiError("the edit was deleted meanwhile", "deleted")
                    else:
                        view = EditView.model_validate_json(data)
                        yield view
                        if view.state in FINAL:
                            return

    @asynccontextmanager
    async def _stream(self, path: str) -> AsyncGenerator[AsyncIterator[str]]:
        try:
            async with self._http.stream(
                "GET", path, headers=self._headers, timeout=_LISTENING
            ) as response:
                if response.is_error:
                    await response.aread()
                    raise _problem(response)
                yield response.aiter_lines()
        except httpx2.RemoteProtocolError:  # a proxy ended it: whoever follows opens it again
            return
        except httpx2.TransportError as error:
            raise _unreachable() from error

    async def _view(self, kind: type[_View], method: str, path: str, **body: Any) -> _View:
        response = await self._ask(method, path, **body)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise ApiError("the API answered what this page does not understand") from error

    async def _ask(self, method: str, path: str, **body: Any) -> httpx2.Response:
        try:
            response = await self._http.request(
                method, path, headers=self._headers, timeout=_PATIENCE, **body
            )
        except httpx2.TransportError as error:
            raise _unreachable() from error
        if response.is_error:
            raise _problem(response)
        return response


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str]]:
    """Name and data of each Server-Sent Event; the API writes each on one line."""
    name = ""
    async for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, line.removeprefix("data: ")


def _problem(response: httpx2.Response) -> ApiError:
    try:
        body = json.loads(response.content)
        return ApiError(str(body["detail"]), str(body["code"]), response.status_code)
    except (ValueError, KeyError, TypeError):
        detail = f"the API answered {response.status_code} without saying why"
        return ApiError(detail, "http_error", response.status_code)


def _unreachable() -> ApiError:
    return ApiError("the API does not answer: it may be starting; try again in a moment")
