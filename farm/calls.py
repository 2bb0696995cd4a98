"""What crosses between a trainer and a frozen network: calls of pure, batched operations.

A trainer states a `Call` (one item, no batch axis); whoever executes it may put items of the same
`key` into one batch. Value and gradient travel together, so a far network is one node of the
trainer's autograd graph (`far_loss`) and trainer code is the same near and far.
"""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Arrays: TypeAlias = Mapping[str, np.ndarray]
Tensors: TypeAlias = Mapping[str, Tensor]
Static: TypeAlias = Mapping[str, Hashable]


@dataclass(frozen=True)
class Call:
    """One item of work for a frozen network.

    Attributes:
        op: registered name of the operation, "family.verb".
        arrays: data of this item, without a batch axis. Timesteps, switches and seeds are data too.
        static: what changes the computation itself and so keeps calls from sharing a batch.
    """

    op: str
    arrays: Arrays
    static: Static = field(default_factory=dict)

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Calls of equal key may share a batch."""
        shapes = tuple((n, a.shape, a.dtype.str) for n, a in sorted(self.arrays.items()))
        return (self.op, tuple(sorted(self.static.items())), shapes)


@dataclass(frozen=True)
class Answer:
    """What one call gave.

    Attributes:
        arrays: results of this item.
        work: units of work by name ("unet_forward", "unet_backward", "vae_decode", …).
        seconds: this item's share of the time that the network was busy.
        pid: process that computed it.
    """

    arrays: Arrays
    work: Mapping[str, int]
    seconds: float
    pid: int = field(default_factory=os.getpid)


@dataclass(frozen=True)
class Batch:
    """Results of an operation over a batch: tensors with a leading batch axis, work per item."""

    tensors: Tensors
    work: Mapping[str, int]


Operation: TypeAlias = Callable[[Any, Tensors, Static], Batch]
"""`(networks, stacked tensors, static) -> Batch`: pure, and no item may influence another."""


@runtime_checkable
class Executor(Protocol):
    """Where calls are answered: in this process or by an actor."""

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers in the order of the calls, which may be answered in one batch or in several.

        Raises:
            FarmError: as the operation raised it, or UnavailableError when nobody answers.
        """
        ...


def run(executor: Executor, call: Call) -> Answer:
    """The answer to one call."""
    return executor.run_all([call])[0]


class _FarLoss(torch.autograd.Function):
    """Forward calls the far side; backward hands on the gradient that came with the value."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, leaf: Tensor, executor: Executor, call: Call, name: str, answers: list[Answer]
    ) -> Tensor:
        array = leaf.detach().cpu().numpy()
        answer = run(executor, Call(call.op, {**call.arrays, name: array}, call.static))
        answers.append(answer)
        ctx.save_for_backward(torch.from_numpy(answer.arrays[f"grad_{name}"]).to(leaf))
        return leaf.new_tensor(float(answer.arrays["loss"]))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0] * gradient, None, None, None, None


def far_loss(
    executor: Executor, call: Call, name: str, leaf: Float[Tensor, "..."]
) -> tuple[Float[Tensor, ""], Answer]:
    """The loss of `call` with `leaf` as its array `name`, differentiable with respect to `leaf`.

    The operation answers `loss` (a scalar) and `grad_<name>` (the shape of `leaf`).

    Returns:
        The loss as a node of the autograd graph, and the whole answer.
    """
    answers: list[Answer] = []
    loss = _FarLoss.apply(leaf, executor, call, name, answers)
    assert isinstance(loss, Tensor)
    return loss, answers[0]


class Meter:
    """An executor that counts: what one edit costs, whoever else shares its batches."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.work: dict[str, int] = {}
        self.seconds = 0.0
        self.calls = 0
        self.pids: set[int] = set()

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        answers = self._executor.run_all(calls)
        for answer in answers:
            self.seconds += answer.seconds
            self.calls += 1
            self.pids.add(answer.pid)
            for name, amount in answer.work.items():
                self.work[name] = self.work.get(name, 0) + amount
        return answers
