"""Who works on a target now: an object that is swapped, never overwritten.

A lease spares work; it does not protect results. Clocks of two machines differ, and a holder that
slept through its expiry may go on, so two may compute at once for a while: then the commit
(farm.storage.commits) decides, and what a holder keeps meanwhile is filed under its epoch. Give a
`ttl` much longer than clocks differ.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from farm.errors import CorruptArtifactError, FarmError, StoreError
from farm.storage.layout import lease_key
from farm.storage.store import MissingKeyError, Store, Version

Clock = Callable[[], float]

_RENEW_TRIES = 3


class LeaseLostError(StoreError):
    """Somebody else took the lease over, or it was released."""


class _Holding(BaseModel):
    """lease.json: epoch and owner together name one tenure; `expires_at` is Unix time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    owner: str
    epoch: int = Field(ge=1)
    expires_at: float

    def is_same_tenure(self, other: "_Holding") -> bool:
        return (self.owner, self.epoch) == (other.owner, other.epoch)


class Lease:
    """One tenure of a target, from `acquire` to `release`, expiry or loss; for any thread."""

    def __init__(
        self,
        store: Store,
        target: str,
        holding: _Holding,
        version: Version,
        ttl: float,
        clock: Clock,
    ) -> None:
        self._store = store
        self._key = lease_key(target)
        self._holding = holding
        self._version = version
        self._ttl = ttl
        self._clock = clock
        self._released = False
        self._lock = threading.RLock()

    @property
    def owner(self) -> str:
        return self._holding.owner

    @property
    def epoch(self) -> int:
        """Higher than that of every earlier tenure of the target."""
        return self._holding.epoch

    @property
    def expires_at(self) -> float:
        """Seconds of the clock given to `acquire`."""
        return self._holding.expires_at

    @property
    def ttl(self) -> float:
        """Seconds for which it is held from each renewal on."""
        return self._ttl

    def renew(self) -> None:
        """Hold for another `ttl` from now.

        Raises:
            LeaseLostError: it is somebody else's by now, or was released.
            StoreError: the store failed; the lease is ours until it expires.
        """
        if not self._swap(self._clock() + self._ttl):
            raise LeaseLostError(
                f"the lease {self._key!r} of {self.owner!r} (epoch {self.epoch}) is lost: renew "
                f"more often than every {self._ttl:g} s, or wait for the other's commit"
            )

    def renew_if_due(self) -> None:
        """`renew`, once a third of `ttl` is over: cheap enough to call at every step."""
        if self._clock() >= self.expires_at - self._ttl * 2 / 3:
            self.renew()

    def release(self) -> None:
        """Let others have it at once; no error if they already do.

        The object stays, as an expired one, so that the next epoch is higher.
        """
        with self._lock:
            self._swap(0.0)
            self._released = True

    def _swap(self, expires_at: float) -> bool:
        """Whether lease.json now says that this tenure expires then."""
        with self._lock:
            wanted = self._holding.model_copy(update={"expires_at": expires_at})
            for _ in range(_RENEW_TRIES):
                if self._released:
                    return False
                version = self._store.put_if_match(self._key, _encode(wanted), self._version)
                if version is not None:
                    self._holding, self._version = wanted, version
                    return True
                # Refused, perhaps since the reply to our own last write was lost.
                current = _read(self._store, self._key)
                if current is None or not current[0].is_same_tenure(wanted):
                    return False
                self._version = current[1]
            return False


class Renewal:
    """Keeps a lease while its holder computes; `renewing` gives it.

    Args:
        lease: that is kept.
        is_alive: whether the holder still shows signs of life; asked from another thread.
    """

    def __init__(self, lease: Lease, is_alive: Callable[[], bool]) -> None:
        self._lease, self._is_alive = lease, is_alive
        self._ended = threading.Event()
        self._error: FarmError | None = None
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    @property
    def is_lost(self) -> bool:
        """Whether a renewal failed for good."""
        return self._error is not None

    def check(self) -> None:
        """Raise what the renewals met, if that is final.

        Raises:
            LeaseLostError: another has the lease by now.
            CorruptArtifactError: lease.json is none any more.
        """
        if self._error is not None:
            raise self._error

    def start(self) -> None:
        """Renew from now on."""
        self._thread.start()

    def end(self) -> None:
        """Renew no more; returns when the thread is gone."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._lease.ttl / 3):
            if not self._is_alive():
                continue  # it hangs: let the lease expire; should it go on, it learns of its loss
            try:
                self._lease.renew()
            except (LeaseLostError, CorruptArtifactError) as error:
                self._error = error
                return
            except StoreError:
                continue  # an outage costs the lease at worst, and the commit decides


@contextmanager
def renewing(lease: Lease, is_alive: Callable[[], bool]) -> Generator[Renewal, None, None]:
    """Renew a lease from a thread of its own, once in a third of its `ttl`, while the block runs.

    So one step of the holder may take longer than the lease.

    Args:
        lease: of this holder.
        is_alive: whether the holder still shows signs of life, so that one that hangs loses it.
    """
    renewal = Renewal(lease, is_alive)
    renewal.start()
    try:
        yield renewal
    finally:
        renewal.end()


def acquire(
    store: Store,
    target: str,
    owner: str,
    *,
    ttl: float,
    clock: Clock = time.time,
    inherits: bool = False,
) -> Lease | None:
    """The lease of a target if nobody holds it, or its holder let it expire; else None.

    Args:
        store: where.
        target: prefix of an edit or a stage (farm.storage.layout).
        owner: who asks; a new uuid for each run, or `name/uuid` for the runs of one task.
        ttl: seconds until it expires, unless renewed.
        clock: seconds of Unix time.
        inherits: whether to take it at once from another run of the same task, which must be dead.

    Raises:
        StoreError: the store failed.
        CorruptArtifactError: lease.json is none.
    """
    key = lease_key(target)
    current = _read(store, key)
    if current is not None and current[0].expires_at > clock():
        task, is_run, _ = owner.rpartition("/")
        if not (inherits and is_run and current[0].owner.startswith(f"{task}/")):
            return None
    epoch = 1 if current is None else current[0].epoch + 1
    wanted = _Holding(owner=owner, epoch=epoch, expires_at=clock() + ttl)
    if current is None:
        version = store.put_if_absent(key, _encode(wanted))
    else:
        version = store.put_if_match(key, _encode(wanted), current[1])
    if version is None:
        landed = _read(store, key)  # somebody was quicker; or we were, and the reply was lost
        if landed is None or not landed[0].is_same_tenure(wanted):
            return None
        version = landed[1]
    return Lease(store, target, wanted, version, ttl, clock)


def _encode(holding: _Holding) -> bytes:
    return holding.model_dump_json().encode()


def _read(store: Store, key: str) -> tuple[_Holding, Version] | None:
    try:
        data, version = store.get_with_version(key)
    except MissingKeyError:
        return None
    try:
        return _Holding.model_validate_json(data), version
    except ValidationError as error:
        raise CorruptArtifactError(
            f"{key!r} in {store.uri} is no lease: {error}; delete it, nothing is lost"
        ) from error
