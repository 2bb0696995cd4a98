"""A farm behind HTTP (docs/http.md) as a place to compute edits; the standard library alone."""

import json
import re
import uuid
from collections.abc import Mapping
from functools import cache
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import farm.errors
from farm.errors import (
    EditFailedError,
    FarmError,
    InvalidRequestError,
    QueueFullError,
    UnavailableError,
)
from farm.notebook.places import Finished, Task
from farm.progress import Progress
from farm.results import Provenance
from farm.runner import Report

_WAIT_SECONDS = 1  # the server answers then at the latest, with how far the edit is
_PATIENCE = 60.0  # seconds without a byte
_HERE = ("127.0.0.1", "localhost", "::1")
_KEY = re.compile(r"[!-~]+")


class HttpFarm:
    """The API of a farm that runs somewhere, such as `editfarm serve` starts.

    Args:
        address: "http://host:port" or "https://…".
        key: of the tenant whose edits these are, where the farm wants one. It is sent to this
            address alone: redirects are not followed.

    Raises:
        InvalidRequestError: no such address, or a key with characters that none has.
    """

    def __init__(self, address: str, key: str | None = None) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise InvalidRequestError(
                f"found the farm {address!r}, expected an address such as http://127.0.0.1:8000"
            )
        if key is not None and not _KEY.fullmatch(key):
            raise InvalidRequestError("the key has blanks or characters that no key has")
        self.address = address.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        proxies = [ProxyHandler({})] if parts.hostname in _HERE else []
        self._opener = build_opener(_NoRedirects(), *proxies)

    def run(self, task: Task, report: Report) -> Finished:
        """See `farm.notebook.Place`: submit, wait, and know where the outputs are.

        An edit whose caller was interrupted goes on there; the same call finds it.

        Raises:
            FarmError: as the farm's answer says.
        """
        view = self._submit(task)
        where = f"/v1/edits/{view['id']}"
        while view["state"] not in ("done", "failed", "cancelled", "deleted"):
            step = view["progress"]
            if step is not None:
                report(Progress(step["stage"], step["step"], step["total"], step["loss"]))
            view = self._json("GET", where, {"Prefer": f"wait={_WAIT_SECONDS}"})
        if view["state"] != "done":
            raise _failure(view)
        result = self._json("GET", f"{where}/result")
        outputs: Mapping[str, str] = result["outputs"]
        return Finished(
            result["edit_id"],
            tuple(outputs),
            cache(lambda name: self._ask("GET", outputs[name])),
            Provenance.model_validate(result["provenance"]),
            view["reused"],
        )

    def _submit(self, task: Task) -> dict[str, Any]:
        fields = {"priority": "interactive", **task.fields}
        texts = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in fields.items()
        }
        files = {"image": task.picture}
        if task.mask is not None:
            files["mask"] = task.mask
        kind, body = multipart(texts, files)
        return self._json("POST", "/v1/edits", {"Content-Type": kind}, body)

    def _json(self, method: str, path: str, *more: Any) -> dict[str, Any]:
        answer = self._ask(method, path, *more)
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._no_farm()
        return found

    def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """The answer's body.

        Raises:
            FarmError: no answer, or one that is no success.
        """
        every = {**self._headers, "Accept": "*/*", **(headers or {})}
        request = Request(self.address + path, body, every, method=method)  # noqa: S310 - checked
        try:
            with self._opener.open(request, timeout=_PATIENCE) as answer:
                return answer.read()
        except HTTPError as error:
            with error:
                raise self._refusal(error.code, error.read()) from None
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            raise UnavailableError(
                f"no farm answers at {self.address} ({reason}): start one with `editfarm serve`, "
                "or mend the address"
            ) from error

    def _refusal(self, status: int, body: bytes) -> FarmError:
        """An answer that is no success, as the farm's own error."""
        try:
            problem = json.loads(body)
            text, code = str(problem["detail"]), str(problem["code"])
        except (ValueError, KeyError, TypeError):
            return self._no_farm(f", which answers {status}")
        if status in (401, 403):
            return InvalidRequestError(f"{self.address} lets nobody in without its key: {text}")
        if status == 429:
            return QueueFullError(text)
        if status >= 500:
            return UnavailableError(text)
        return _error_of(code, text, InvalidRequestError)

    def _no_farm(self, how: str = "") -> FarmError:
        return UnavailableError(f"{self.address}{how} is no edit farm: mend the address")


class _NoRedirects(HTTPRedirectHandler):
    """A key must not go where somebody else says."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def multipart(texts: Mapping[str, str], files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """A form's content type and body (RFC 7578); names are ours, and plain."""
    boundary = uuid.uuid4().hex
    parts: list[bytes] = []
    for name, text in texts.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts += [head.encode(), text.encode(), b"\r\n"]
    for name, data in files.items():
        head = (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="{name}"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        parts += [head.encode(), data, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", b"".join(parts)


def _failure(view: Mapping[str, Any]) -> FarmError:
    error = view["error"] or {"code": "edit_cancelled", "detail": f"the edit was {view['state']}"}
    return _error_of(error["code"], error["detail"], EditFailedError)


def _error_of(code: str, text: str, otherwise: type[FarmError]) -> FarmError:
    """The farm's own error of this code (`unknown_word` → `UnknownWordError`), if it is one."""
    name = "".join(word.title() for word in code.split("_")) + "Error"
    found = getattr(farm.errors, name, None)
    if isinstance(found, type) and issubclass(found, FarmError):
        return found(text)
    return otherwise(text)
