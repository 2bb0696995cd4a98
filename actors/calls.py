# pyright: standard
"""Where Ray's errors end and the farm's begin; above this file nobody knows Ray's.

Ray wraps whatever a worker raises in a class made on the fly; here the worker's own error comes out
again, with Ray's, which has the worker's traceback, as its cause.
"""

import asyncio
import collections
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import ray
from ray.exceptions import (
    GetTimeoutError,
    PendingCallsLimitExceeded,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
)
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError

from farm.errors import (
    BackboneLostError,
    EditCancelledError,
    FarmError,
    OutOfMemoryError,
    QueueFullError,
    UnavailableError,
    unforeseen,
)

T = TypeVar("T")
Item = TypeVar("Item")

Ref: TypeAlias = ray.ObjectRef[T]


_IDLE = 0.5  # seconds


def result_of(ref: Ref[T], timeout: float | None = None) -> T:
    """`ray.get`, raising the worker's own error.

    Args:
        ref: of a task or an actor's method.
        timeout: seconds to wait; for ever if None.

    Raises:
        FarmError: what the worker raised, or what became of the worker.
    """
    try:
        return ray.get(ref, timeout=timeout)
    except RayError as error:
        raise unwrapped(error, timeout) from error


async def awaited(ref: Ref[T], patience: float | None = None) -> T:
    """`result_of` for coroutines.

    Raises:
        FarmError: as `result_of`.
    """
    try:
        return await asyncio.wait_for(ref, patience)
    except TimeoutError as error:
        ray.cancel(ref)
        raise _too_late(patience) from error
    except RayError as error:
        raise unwrapped(error, patience) from error


async def in_time(waiting: Awaitable[T], patience: float | None) -> T:
    """What is awaited, which is cancelled when the time is up.

    Args:
        waiting: what gives the result.
        patience: seconds to wait; for ever if None.

    Raises:
        UnavailableError: it did not come in time.
    """
    try:
        return await asyncio.wait_for(waiting, patience)
    except TimeoutError as error:
        raise _too_late(patience) from error


def results_of(refs: Sequence[Ref[T]], timeout: float | None = None) -> list[T]:
    """All results, in order; when one fails or the time is up, the others are cancelled.

    Raises:
        FarmError: as `result_of`.
    """
    try:
        return ray.get(list(refs), timeout=timeout)
    except RayError as error:
        for ref in refs:
            ray.cancel(ref)
        raise unwrapped(error, timeout) from error


def unwrapped(error: BaseException, timeout: float | None = None) -> FarmError:
    """The farm's error for one of Ray's; what the farm did not foresee is an EditFailedError."""
    match error:
        case FarmError() if not isinstance(error, RayError):
            return error
        case RayTaskError():
            return unwrapped(error.cause)
        case TaskCancelledError():
            return EditCancelledError("the task was cancelled")
        case GetTimeoutError():
            return _too_late(timeout)
        case PendingCallsLimitExceeded():
            return QueueFullError(f"too many calls wait already: {error}; try again later")
        case RayOutOfMemoryError():
            return OutOfMemoryError(f"the machine ran out of memory: {_first_line(error)}")
        case RayActorError(args=(RayTaskError() as failed,)):  # its constructor raised
            return unwrapped(failed.cause)
        case RayActorError():
            return BackboneLostError(f"an actor died and did not come back: {_first_line(error)}")
        case RayError():
            return UnavailableError(
                f"the machine failed ({type(error).__name__}): {_first_line(error)}; try again"
            )
        case _:
            return unforeseen(error)


def is_loss(error: FarmError) -> bool:
    """Whether an actor is gone: also one that could not start anew, whose own error this is."""
    return isinstance(error, BackboneLostError) or isinstance(error.__cause__, RayActorError)


def _too_late(timeout: float | None) -> UnavailableError:
    return UnavailableError(
        f"no answer within {timeout:.1f} s: the farm is overloaded or hangs; look at "
        "`editfarm doctor`, then try again"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def map_bounded(
    submit: Callable[[Item], Ref[T]],
    items: Iterable[Item],
    *,
    in_flight: int,
    idle: Callable[[], None] | None = None,
) -> Iterator[tuple[Item, T | FarmError]]:
    """Run a remote call for each item and yield each item with its outcome, as they finish.

    Items are drawn only as room becomes free, so the iterable may be longer than memory. When the
    caller stops early, what is in flight is cancelled.

    Args:
        submit: starts the work of an item.
        items: what to work on.
        in_flight: how many run at once.
        idle: called about twice a second while waiting.
    """
    if in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}, expected at least 1")
    source = iter(items)
    running: collections.OrderedDict[Ref[T], Item] = collections.OrderedDict()
    try:
        while True:
            while len(running) < in_flight:
                try:
                    item = next(source)
                except StopIteration:
                    break
                running[submit(item)] = item
            if not running:
                return
            finished, _ = ray.wait(list(running), num_returns=1, timeout=idle and _IDLE)
            if idle is not None:
                idle()
            for ref in finished:
                yield running.pop(ref), _outcome(ref)
    finally:
        if ray.is_initialized():  # else `cancel` would start a Ray, when this is closed at the end
            for ref in running:
                ray.cancel(ref)


def _outcome(ref: Ref[T]) -> T | FarmError:
    try:
        return result_of(ref)
    except FarmError as error:
        return error
