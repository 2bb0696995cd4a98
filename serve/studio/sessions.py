"""Who sits in front of the page: by a key that was shown once, or nobody in particular."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

import httpx2

from serve.studio.client import Api

COOKIE = "editfarm_studio"

_SESSION_SECONDS = 12 * 3600
_MOST_SESSIONS = 1000
_MOST_MASKS = 200


class Sessions:
    """Visitors' keys, in memory alone: a restarted studio asks for them again.

    Args:
        http: with the API's address as its base.
        with_keys: whether the API asks for keys.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        http: httpx2.AsyncClient,
        *,
        with_keys: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http, self.with_keys, self._clock = http, with_keys, clock
        self._keys: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._masks: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    async def enter(self, key: str) -> str | None:
        """A new session's name for a key that the API knows.

        Raises:
            ApiError: the API does not answer.
        """
        if not await Api(self._http, key).knows_me():
            return None
        name = secrets.token_urlsafe(32)
        self._keys[name] = key, self._clock() + _SESSION_SECONDS
        while len(self._keys) > _MOST_SESSIONS:
            self._keys.popitem(last=False)
        return name

    def leave(self, name: str) -> None:
        """End a session."""
        self._keys.pop(name, None)

    def knows(self, name: str) -> bool:
        """Whether this visitor may see the page."""
        return not self.with_keys or self._key(name) is not None

    def api(self, name: str) -> Api:
        """The API as this visitor; without a session it is asked without a key, and refuses."""
        return Api(self._http, self._key(name))

    def keep_mask(self, name: str, edit: str, mask: bytes) -> None:
        """Note what the visitor painted for an edit whose method takes no mask."""
        self._masks[self._owner(name), edit] = mask
        while len(self._masks) > _MOST_MASKS:
            self._masks.popitem(last=False)

    def mask(self, name: str, edit: str) -> bytes | None:
        """What the visitor painted for an edit, while it is remembered."""
        return self._masks.get((self._owner(name), edit))

    def _key(self, name: str) -> str | None:
        key, ends = self._keys.get(name, (None, 0.0))
        if key is not None and ends < self._clock():
            self.leave(name)
            return None
        return key

    def _owner(self, name: str) -> str:
        """Sessions with keys are apart; without keys there is one visitor, this machine's user."""
        return name if self.with_keys else ""
