"""Who is asking: a tenant by its key, or this machine's own user where there are no keys."""

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from farm.errors import InvalidRequestError
from serve.keys import KeyRing, Tenant
from serve.limits import TenantLimits
from serve.problems import NotFoundError, ProblemError
from serve.settings import TENANT

_LINK_SECONDS = 3600
_NO_LIMITS = TenantLimits(edits_per_minute=None, max_queued=None, max_jobs=None)


class Gate:
    """Lets callers in.

    Args:
        keys: of all tenants; without, only this machine is served.
        clock: seconds since 1970, for links.
    """

    def __init__(self, keys: KeyRing | None, clock: Callable[[], float] = time.time) -> None:
        self._keys, self._clock = keys, clock

    @property
    def is_open(self) -> bool:
        """Whether callers need no key, and must therefore be on this machine."""
        return self._keys is None

    async def __call__(self, request: Request) -> str:
        """The caller's tenant.

        Raises:
            ProblemError: 401, whatever is wrong with the key.
        """
        if self._keys is None:
            return _seen(request, TENANT)
        tenant = self._keys.tenant_of(_sent_key(request))
        if tenant is None:
            raise ProblemError(
                401,
                "invalid_api_key",
                "an API key is needed: send it as `Authorization: Bearer ef_…`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return _seen(request, tenant)

    def limits_of(self, tenant: str) -> TenantLimits:
        """A tenant's limits; this machine's own user has those of a request alone."""
        if self._keys is None:
            return _NO_LIMITS
        return self._keys.tenants().get(tenant, Tenant()).limits

    def webhook_secret_of(self, tenant: str) -> str:
        """What a tenant's webhooks are signed with."""
        if self._keys is None:
            return "no keys"
        return self._keys.tenants().get(tenant, Tenant()).webhook_secret

    def link(self, tenant: str, name: str, file: str) -> str:
        """Path and query that give one output to whoever has them, for an hour."""
        if self._keys is None:
            return f"/v1/edits/{name}/outputs/{file}"
        expires = int(self._clock()) + _LINK_SECONDS
        proof = self._proof(tenant, name, file, expires)
        query = f"tenant={tenant}&expires={expires}&signature={proof}"
        return f"/v1/links/{name}/{file}?{query}"

    def check_link(self, tenant: str, name: str, file: str, expires: int, proof: str) -> None:
        """Let a link's holder in.

        Raises:
            NotFoundError: it was changed, or its time is over.
        """
        same = hmac.compare_digest(
            self._proof(tenant, name, file, expires).encode(), proof.encode("utf-8", "replace")
        )
        if not same or expires < self._clock():
            raise NotFoundError("link, or no longer")

    def _proof(self, tenant: str, name: str, file: str, expires: int) -> str:
        if self._keys is None:
            raise NotFoundError("link")
        text = "\n".join((tenant, name, file, str(expires)))
        return hmac.new(self._keys.link_secret, text.encode(), hashlib.sha256).hexdigest()


async def _caller(request: Request) -> str:
    return await request.app.state.gate(request)


Caller = Annotated[str, Depends(_caller)]
"""The tenant that asks, in a route; see `Gate`."""


def check_listening(host: str | None, *, has_keys: bool) -> None:
    """Refuse to serve strangers without keys.

    Args:
        host: that is listened on; None and "" are all interfaces.
        has_keys: whether callers must show one.

    Raises:
        InvalidRequestError: everybody who reaches this machine could edit, list and delete.
    """
    if not has_keys and not is_loopback(host or ""):
        raise InvalidRequestError(
            f"listening on {host or 'all interfaces'} without API keys would serve whoever reaches "
            "this machine: make keys with `editfarm keys add` and pass their file, or listen on "
            "127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether this names the machine itself to itself; no name is looked up."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _sent_key(request: Request) -> str:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", "")


def _seen(request: Request, tenant: str) -> str:
    request.state.tenant = tenant  # for the access log
    return tenant
