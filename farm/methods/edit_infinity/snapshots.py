"""Which iterations of a training can be used later, and what to say of one that cannot."""

from collections.abc import Mapping, Sequence

from jaxtyping import Shaped
from torch import Tensor

from farm.errors import InvalidRequestError
from farm.methods.edit_infinity.config import EditInfinityConfig


def saved_by_updates(config: EditInfinityConfig, iterations: int) -> dict[int, int]:
    """Names of the iterations that are kept, by the number of updates behind them."""
    return {config.updates(n): n for n in config.saved(iterations)}


def check_iteration(wanted: int | None, existing: Sequence[int], switch: str, what: str) -> None:
    """Whether an iteration that is asked for is one that exists.

    Raises:
        InvalidRequestError: naming the iterations that do.
    """
    if wanted is not None and wanted not in existing:
        raise InvalidRequestError(
            f"{switch} is {wanted}, and of {what} exist the iterations "
            f"{', '.join(map(str, existing)) or 'none'}: ask for one of these, train longer or "
            "save more often"
        )


def chosen(
    snapshots: Mapping[int, Tensor], iteration: int | None, what: str
) -> Shaped[Tensor, "..."]:
    """The snapshot of an iteration; None: the last.

    Raises:
        InvalidRequestError: there is none of that iteration.
    """
    check_iteration(iteration, sorted(snapshots), "the iteration to use", what)
    if not snapshots:
        raise InvalidRequestError(f"no iteration of {what} exists: train it first")
    return snapshots[max(snapshots) if iteration is None else iteration]
