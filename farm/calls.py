"""What crosses between a trainer and a frozen network: calls of pure, batched operations.

A trainer states a `Call` (one item, no batch axis); whoever executes it may put items of the same
`key` into one batch. Value and gradient travel together, so a far network is one node of the
trainer's autograd graph (`far_losses`) and trainer code is the same near and far.
"""

import os
from abc import ABC, abstractmethod
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
    """Results of an operation over a batch.

    Attributes:
        tensors: with a leading batch axis.
        work: of each item.
        extra: work of single items on top of that, such as filling a cache; none, or one per item.
    """

    tensors: Tensors
    work: Mapping[str, int]
    extra: Sequence[Mapping[str, int]] = ()

    def work_of(self, item: int) -> Mapping[str, int]:
        """All work of one item."""
        if not self.extra:
            return self.work
        return summed(self.work, self.extra[item])


Operation: TypeAlias = Callable[[Any, Tensors, Static], Batch]
"""`(networks, stacked tensors, static) -> Batch`: pure, and no item may influence another."""


@dataclass(frozen=True)
class Midway:
    """Items of a stepped operation between two of its steps.

    Attributes:
        tensors: their state: tensors with a leading batch axis, or whatever else the host can part
            into rows and join again.
        phases: of each item: items of equal call key and phase may take their next step in one
            batch, whenever they began; None: the item has taken its last.
        work: of each item, done to get here.
    """

    tensors: Mapping[str, Any]
    phases: Sequence[Hashable]
    work: Mapping[str, int] = field(default_factory=dict[str, int])


class Stepped(ABC):
    """An operation of several steps; between two of them others may use the networks.

    Pure, and no item may influence another, whoever meets it on the way. As an `Operation` it runs
    to its end at once. A step may be taken again from the same state, so what it writes into it
    must be what it would write again.
    """

    @abstractmethod
    def begin(self, networks: Any, tensors: Tensors, static: Static) -> Midway:
        """Before the first step of stacked items."""

    @abstractmethod
    def step(self, networks: Any, tensors: Mapping[str, Any], static: Static, phase: Any) -> Midway:
        """One step of items of one phase."""

    @abstractmethod
    def end(self, networks: Any, tensors: Mapping[str, Any], static: Static) -> Batch:
        """The results of items that have taken their last step, and the work of this alone."""

    def __call__(self, networks: Any, tensors: Tensors, static: Static) -> Batch:
        """All steps of a batch that stays together: items that begin together end together."""
        midway = self.begin(networks, tensors, static)
        work = dict(midway.work)
        while midway.phases[0] is not None:
            midway = self.step(networks, midway.tensors, static, midway.phases[0])
            work = summed(work, midway.work)
        batch = self.end(networks, midway.tensors, static)
        return Batch(batch.tensors, summed(work, batch.work), batch.extra)


@dataclass(frozen=True, eq=False)
class Paused:
    """A call of a stepped operation between two steps; it never leaves its process.

    Attributes:
        call: what is being answered.
        phase: see `Midway`.
        held: what the host needs to go on.
        work: done so far.
        seconds: this item's share of the time that the network was busy so far.
    """

    call: Call
    phase: Hashable
    held: Any
    work: Mapping[str, int]
    seconds: float

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Those of equal key may take their next step in one batch."""
        return (*self.call.key, self.phase)


def summed(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Work of both."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in one.keys() | other.keys()}


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


class _FarLosses(torch.autograd.Function):
    """Forward calls the far side; backward hands on the gradients that came with the values."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        leaves: Tensor,
        executor: Executor,
        calls: Sequence[Call],
        name: str,
        answers: list[Answer],
    ) -> Tensor:
        arrays = leaves.detach().cpu().numpy()
        answers.extend(
            executor.run_all(
                [
                    Call(call.op, {**call.arrays, name: array}, call.static)
                    for call, array in zip(calls, arrays, strict=True)
                ]
            )
        )
        gradients = np.stack([answer.arrays[f"grad_{name}"] for answer in answers])
        ctx.save_for_backward(torch.from_numpy(gradients).to(leaves))
        return leaves.new_tensor([float(answer.arrays["loss"]) for answer in answers])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        scale = grad_outputs[0].view(-1, *[1] * (gradients.dim() - 1))
        return scale * gradients, None, None, None, None


def far_losses(
    executor: Executor,
    calls: Sequence[Call],
    name: str,
    leaves: Float[Tensor, "items ..."],
) -> tuple[Float[Tensor, " items"], list[Answer]]:
    """The loss of each call with its row of `leaves` as array `name`, differentiable.

    All calls are sent before any answer is awaited. The operation answers `loss` (a scalar) and
    `grad_<name>` (the shape of one row).

    Returns:
        The losses as one node of the autograd graph, and the whole answers.
    """
    answers: list[Answer] = []
    losses = _FarLosses.apply(leaves, executor, calls, name, answers)
    assert isinstance(losses, Tensor)
    return losses, answers


def far_loss(
    executor: Executor, call: Call, name: str, leaf: Float[Tensor, "..."]
) -> tuple[Float[Tensor, ""], Answer]:
    """`far_losses` of a single call."""
    losses, (answer,) = far_losses(executor, [call], name, leaf[None])
    return losses[0], answer


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
