"""A toy backbone: fixed weights, a loss with a known gradient, and ways to fail and to wait."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from farm import errors
from farm.calls import Answer, Call, Executor, far_loss, run
from farm.errors import EditCancelledError, FarmError
from farm.progress import Progress

WIDTH = 48


class Meeting:
    """Where another process arrives and stays until released: nothing is timed, nobody polls.

    Whoever calls `at` keeps both pipes open, so a byte written before it is read is not lost, and
    whoever waits goes on when that process ends.
    """

    _held: ClassVar[list["Meeting"]] = []

    def __init__(self, folder: Path, arrived: int, released: int) -> None:
        self.folder = folder
        self._arrived, self._released = arrived, released

    @classmethod
    def at(cls, folder: Path) -> "Meeting":
        folder.mkdir()
        os.mkfifo(folder / "arrived")
        os.mkfifo(folder / "released")
        # read and write: neither waits for a partner
        meeting = cls(folder, *(os.open(folder / n, os.O_RDWR) for n in ("arrived", "released")))
        cls._held.append(meeting)
        return meeting

    @classmethod
    def end_all(cls) -> None:
        """Whoever still waits goes on: a test that failed leaves nobody behind in a shared farm."""
        while cls._held:
            meeting = cls._held.pop()
            os.write(meeting._released, b"." * 16)  # more than ever wait at one

    def await_arrival(self) -> None:
        os.read(self._arrived, 1)

    def release(self) -> None:
        os.write(self._released, b".")


def arrive_and_wait(folder: Path) -> None:
    """Say that we are at the meeting, then stay until released."""
    with (folder / "arrived").open("wb", buffering=0) as arrived:
        arrived.write(b".")
    with (folder / "released").open("rb", buffering=0) as released:
        released.read(1)


class ToyHost:
    """Answers `toy.*` calls; a batch is one matrix product, so its size shows in the rounding."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.weights = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3))

    def describe(self) -> dict[str, Any]:
        return {"parameters": {"toy": self.weights.numel()}}

    def make_room(self) -> bool:
        return False

    def promised_bytes(self) -> int:
        return 0

    def run_batch(self, calls: Sequence[Call]) -> list[Answer | FarmError]:
        first = calls[0]
        if "meet" in first.static:
            arrive_and_wait(Path(str(first.static["meet"])))
        match first.op:
            case "toy.value_and_grad":
                return self._value_and_grad(calls)
            case "toy.echo":
                return [Answer(dict(call.arrays), {"toy": 1}, 0.0) for call in calls]
            case "toy.fail":
                return [getattr(errors, str(first.static["error"]))("told to") for _ in calls]
            case op:
                raise ZeroDivisionError(f"no {op}")

    def run_step(self, items: Sequence[Any]) -> Sequence[Answer | FarmError]:
        return self.run_batch(items)

    @torch.enable_grad()  # inline we run inside `far_loss`, where autograd turns grad mode off
    def _value_and_grad(self, calls: Sequence[Call]) -> list[Answer | FarmError]:
        x = torch.from_numpy(np.stack([call.arrays["x"] for call in calls])).requires_grad_(True)
        target = torch.from_numpy(np.stack([call.arrays["target"] for call in calls]))
        losses = ((torch.tanh(x @ self.weights) - target) ** 2).mean(dim=1)
        (grads,) = torch.autograd.grad(losses.sum(), x)
        return [
            Answer(
                {"loss": losses[row].detach().numpy(), "grad_x": grads[row].numpy()},
                {"toy_forward": 1, "toy_backward": 1},
                0.0,
            )
            for row in range(len(calls))
        ]


class ToyInline:
    """The exact reference: each call in a batch of its own, in this process."""

    def __init__(self) -> None:
        self.host = ToyHost("cpu")

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        outcomes = [self.host.run_batch([call])[0] for call in calls]
        assert all(isinstance(outcome, Answer) for outcome in outcomes)
        return outcomes  # type: ignore[return-value]


def broken_host(_device: str) -> ToyHost:
    raise errors.ModelSetError("the weights of toy are missing")


@dataclass(frozen=True)
class ToyRequest:
    """Adam on `x` for some steps; `meet_at` is a step whose call waits at a meeting."""

    seed: int
    steps: int = 20
    alone: bool = False
    meet_at: int = -1
    meet: str = ""


def echo(value: float, **static: Any) -> Call:
    return Call("toy.echo", {"value": np.asarray(value, dtype=np.float32)}, static)


def train_toy(
    request: ToyRequest,
    executor: Executor,
    report_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """The trained `x`: a trainer entry as a method would be, and its own inline reference."""
    generator = torch.Generator().manual_seed(request.seed)
    target = torch.rand(WIDTH, generator=generator).numpy()
    x = torch.randn(WIDTH, generator=generator).requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=0.05)
    for step in range(request.steps):
        if should_stop():
            raise EditCancelledError(f"stopped before step {step}")
        static: dict[str, Any] = {"alone": True} if request.alone else {}
        if step == request.meet_at:
            static["meet"] = request.meet
        call = Call("toy.value_and_grad", {"target": target}, static)
        loss, _ = far_loss(executor, call, "x", x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report_progress(Progress("toy", step + 1, request.steps, loss=loss.item()))
    return x.detach().numpy()


def loaded_modules(
    _request: Any, _executor: Executor, _report: Callable[..., None], _stop: Callable[[], bool]
) -> tuple[set[str], int, str | None]:
    """Top-level modules of the trainer's process, its torch threads and OMP_NUM_THREADS."""
    return (
        {name.partition(".")[0] for name in sys.modules},
        torch.get_num_threads(),
        os.environ.get("OMP_NUM_THREADS"),
    )


def run_until_stopped(
    _request: Any,
    _executor: Executor,
    report_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> None:
    """Never ends by itself."""
    step = 0
    while not should_stop():
        step += 1
        report_progress(Progress("toy", step, step + 1))
    raise EditCancelledError("as was asked")


def ask_once(
    request: Call,
    executor: Executor,
    report_progress: Callable[[Progress], None],
    _stop: Callable[[], bool],
) -> float:
    report_progress(Progress("toy", 1, 1))
    return float(run(executor, request).arrays["value"])
