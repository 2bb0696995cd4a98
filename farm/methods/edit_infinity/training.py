"""One optimisation of one tensor against a far loss, resumable to the bit (spec §5.3, §5.4)."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from farm.errors import CorruptArtifactError, EditDivergedError
from farm.methods.edit_infinity.client import StepLoss
from farm.methods.edit_infinity.config import OptimiserConfig
from farm.progress import Picture, Progress

_SNAPSHOT = "snapshots."

Leaf = Float[Tensor, "*shape"]


@dataclass(frozen=True)
class TrainingState:
    """A training between two steps. Tensors are never changed.

    Attributes:
        leaf: what is trained.
        mean: first moment of its gradient.
        square: second moment.
        losses: of every step so far, before it.
        norms: of every step's gradient, before clipping.
        snapshots: `leaf` at iterations that can be used later.
    """

    leaf: Leaf
    mean: Leaf
    square: Leaf
    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    snapshots: Mapping[int, Tensor] = field(default_factory=dict[int, Tensor])

    @classmethod
    def starting(cls, leaf: Leaf) -> "TrainingState":
        """Before the first step."""
        return cls(leaf, torch.zeros_like(leaf), torch.zeros_like(leaf))

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        tensors = {
            "leaf": self.leaf,
            "mean": self.mean,
            "square": self.square,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "norms": torch.tensor(self.norms, dtype=torch.float64),
        }
        tensors |= {f"{_SNAPSHOT}{n}": value for n, value in self.snapshots.items()}
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "TrainingState":
        """Inverse of `to_tensors`.

        Raises:
            CorruptArtifactError: a tensor is missing or they contradict each other.
        """
        try:
            state = cls(
                leaf=tensors["leaf"],
                mean=tensors["mean"],
                square=tensors["square"],
                losses=tuple(tensors["losses"].tolist()),
                norms=tuple(tensors["norms"].tolist()),
                snapshots=snapshots_in(tensors),
            )
        except KeyError as error:
            raise CorruptArtifactError(
                f"stored training state has no {error.args[0]!r}, only {sorted(tensors)}: delete "
                "it and train again"
            ) from error
        shapes = {tuple(t.shape) for t in (state.leaf, state.mean, state.square)}
        if len(shapes) != 1 or len(state.losses) != len(state.norms):
            raise CorruptArtifactError(
                f"stored training state has shapes {sorted(shapes)}, {len(state.losses)} losses "
                f"and {len(state.norms)} norms, which do not belong together: delete it "
                "and train again"
            )
        return state


@dataclass(frozen=True)
class Run:
    """Which training this is.

    Attributes:
        stage: its name.
        updates: optimiser steps in all.
        saved: iteration names of the snapshots, by the number of updates behind them.
        before: steps of the stage that come before the first update.
        total: steps of the stage.
        preview: what the model draws of the source with a leaf.
    """

    stage: str
    updates: int
    saved: Mapping[int, int]
    before: int
    total: int
    preview: Callable[[Leaf], Picture] | None = None


def snapshots_in(tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Snapshots among stored tensors, by iteration."""
    named = {n: t for n, t in tensors.items() if n.startswith(_SNAPSHOT)}
    return {int(name.removeprefix(_SNAPSHOT)): tensor for name, tensor in named.items()}


def optimise(
    state: TrainingState,
    loss_at: Callable[[Leaf, int], StepLoss],
    config: OptimiserConfig,
    run: Run,
) -> Generator[Progress, None, TrainingState]:
    """AdamW on `state.leaf` until all updates are done; the gradient's norm is clipped.

    Args:
        state: where to start.
        loss_at: loss of a leaf at a step, counted from 0; its random numbers are the step's own.
        config: of the optimiser.
        run: how many steps, and which of them to keep.

    Yields:
        One `Progress` per step, with a checkpoint.

    Raises:
        EditDivergedError: a loss is not finite.
    """
    if 0 in run.saved:  # the released first iteration has seen no update at all
        state = replace(state, snapshots={run.saved[0]: state.leaf, **state.snapshots})
    while state.step < run.updates:
        leaf = state.leaf.clone().requires_grad_()
        found = loss_at(leaf, state.step)
        if not found.loss.isfinite():
            raise EditDivergedError(
                f"{run.stage}: the loss is {found.loss.item()} at step {state.step} of "
                f"{run.updates}: try a learning_rate below {config.learning_rate:g} or another seed"
            )
        found.loss.backward()  # pyright: ignore[reportUnknownMemberType]
        norm = torch.nn.utils.clip_grad_norm_([leaf], config.max_grad_norm).item()  # D3
        optimiser = _optimiser(leaf, state, config)
        optimiser.step()
        state = _after(state, leaf, optimiser, found, norm, run)
        detail = {
            "gradient_norm": norm,
            "weighted_loss": found.weighted,
            "divergence": found.divergence,
            "bit_accuracy": found.accuracy.mean().item(),
        }
        step, loss = run.before + state.step, state.losses[-1]
        preview = None if run.preview is None else partial(run.preview, state.leaf)
        yield Progress(run.stage, step, run.total, loss, detail, checkpoint=state, preview=preview)
    return state


def _optimiser(leaf: Tensor, state: TrainingState, config: OptimiserConfig) -> torch.optim.AdamW:
    """An optimiser as it was after the state's last step."""
    optimiser = torch.optim.AdamW(
        [leaf],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    optimiser.state[leaf] = {
        "step": torch.tensor(float(state.step)),
        "exp_avg": state.mean.clone(),
        "exp_avg_sq": state.square.clone(),
    }
    return optimiser


def _after(
    state: TrainingState,
    leaf: Tensor,
    optimiser: torch.optim.AdamW,
    found: StepLoss,
    norm: float,
    run: Run,
) -> TrainingState:
    moments = optimiser.state[leaf]
    value, done = leaf.detach(), state.step + 1
    snapshots = dict(state.snapshots)
    if done in run.saved:
        snapshots[run.saved[done]] = value
    return TrainingState(
        leaf=value,
        mean=moments["exp_avg"],
        square=moments["exp_avg_sq"],
        losses=(*state.losses, found.loss.item()),
        norms=(*state.norms, norm),
        snapshots=snapshots,
    )
