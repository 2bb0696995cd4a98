"""Telling somebody's server that an edit has ended: signed, tried again, never followed elsewhere.

Signatures are those of the Standard Webhooks specification: `webhook-signature` is `v1,` and the
base64 of HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>` with the tenant's secret. The
receiver must compare it, and should refuse timestamps that are old.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol
from urllib.parse import urlsplit

import httpx2

from farm.errors import FarmError, InvalidRequestError
from serve.ledger import Ledger
from serve.records import EditRecord, Webhook
from serve.views import edit_view

_log = logging.getLogger("editfarm.serve")

_TIMEOUT = 10.0
"""Seconds for a whole try, from asking for a connection to the head of the answer."""
_TRIES = 8
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 300.0

Pause = Callable[[float], Awaitable[None]]


class Courier(Protocol):
    """Who delivers."""

    async def deliver(self, record: EditRecord) -> EditRecord:
        """Tell of a record's end; the record afterwards says how that went.

        Ends early where somebody wants the edit tried again: that record comes back as it is.
        """
        ...


class HttpCourier:
    """Posts to the hosts that the operator allows.

    Args:
        ledger: where the outcome is noted.
        secret_of: a tenant's secret.
        client: sends; it must not follow redirects.
        pause: waits between two tries; seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        secret_of: Callable[[str], str],
        client: httpx2.AsyncClient,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._ledger, self._secret_of = ledger, secret_of
        self._client, self._pause = client, pause

    async def deliver(self, record: EditRecord) -> EditRecord:
        wait = _FIRST_PAUSE
        hook = record.webhook
        while hook is not None and hook.state == "waiting":
            accepted = await self._post(record, hook)
            tries = hook.attempts + 1
            state = "delivered" if accepted else "given_up" if tries >= _TRIES else "waiting"
            hook = Webhook(url=hook.url, attempts=tries, state=state)
            noted = await self._note(record, hook)
            if state == "waiting" and _same_end(noted, record):
                await self._pause(wait)
                wait = min(4 * wait, _LONGEST_PAUSE)
                noted = await self._note(record, hook)  # a retry may have come meanwhile
            if not _same_end(noted, record):
                return noted  # whoever ends it again tells of that
            record = noted
        return record

    async def _note(self, record: EditRecord, hook: Webhook) -> EditRecord:
        """The record with this outcome; one that was opened again meanwhile stays as it is."""

        def step(found: EditRecord) -> EditRecord:
            return found.model_copy(update={"webhook": hook}) if _same_end(found, record) else found

        try:
            changed = await asyncio.to_thread(self._ledger.change, record.tenant, record.id, step)
        except FarmError as error:
            _log.warning("webhook of %s: cannot be noted: %s", record.id, type(error).__name__)
            changed = None
        return changed or step(record)

    async def _post(self, record: EditRecord, hook: Webhook) -> bool:
        body = json.dumps({"type": f"edit.{record.state}", "data": edit_view(record)}).encode()
        stamp = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "webhook-id": record.id,
            "webhook-timestamp": stamp,
            "webhook-signature": signature(self._secret_of(record.tenant), record.id, stamp, body),
        }
        # The client's own timeout is for each read: a byte now and then would hold a connection,
        # of which all tenants share a hundred, for ever. Nobody needs the answer's body.
        try:
            async with (
                asyncio.timeout(_TIMEOUT),
                self._client.stream(
                    "POST",
                    hook.url,
                    content=body,
                    headers=headers,
                    timeout=_TIMEOUT,
                    follow_redirects=False,
                ) as reply,
            ):
                return reply.is_success
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            _log.info("webhook of %s: %s", record.id, type(error).__name__)
            return False


def _same_end(found: EditRecord, record: EditRecord) -> bool:
    """Whether an edit is still at the end that is told; a retry gives it another."""
    return found.is_final and found.finished == record.finished


def signature(secret: str, name: str, timestamp: str, body: bytes) -> str:
    """What `webhook-signature` must be."""
    signed = f"{name}.{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def check_webhook(url: str, hosts: Collection[str]) -> str:
    """The URL itself, if the operator allows its host.

    Raises:
        InvalidRequestError: not http or https, with a user or a fragment, or another host.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.lower()
    except ValueError as error:
        raise InvalidRequestError("webhook_url is no URL: write https://host/path") from error
    if parts.scheme not in {"https", "http"} or "@" in host or parts.fragment or len(url) > 2000:
        raise InvalidRequestError(
            "webhook_url is not a plain https:// URL: write https://host/path"
        )
    if host not in hosts:
        raise InvalidRequestError(
            "webhook_url names a host that this farm's operator has not allowed: ask for it to be "
            "added to webhook_hosts"
        )
    return url
