"""Steps of a network captured as CUDA graphs, for batches of few sizes.

A step of one picture through Stable Diffusion's UNet is a thousand kernels of some microseconds
each: launching them takes longer than computing them. A captured step is launched as one. Capture
fixes shapes and addresses, so batches are filled up to the next of a few sizes and inputs are
copied to where the graph reads them. Elsewhere than on CUDA a step is just called.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Shaped
from torch import Tensor

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Sizes of batches that are captured; larger ones are computed as they are."""
_GRAPHS = 16
"""Most graphs that are kept: each holds what it allocated, in memory that all share."""
_WARM_UP = 2
"""Calls before a capture: libraries choose their algorithms and allocate in them."""

Tensors: TypeAlias = Mapping[str, Shaped[Tensor, "..."]]
Step: TypeAlias = Callable[[Tensors], Tensors]
"""Pure, of stacked tensors with a leading batch axis, rows apart from each other."""


def bucket_for(rows: int, buckets: Sequence[int] = BUCKETS) -> int:
    """The smallest bucket that holds so many rows; the number itself where none does."""
    return min((size for size in buckets if size >= rows), default=rows)


def filled_up(tensors: Tensors, size: int) -> dict[str, Tensor]:
    """Rows repeated to the size of a bucket; what the last row says again nobody hears."""
    rows = len(next(iter(tensors.values())))
    if rows == size:
        return dict(tensors)
    return {
        name: torch.cat([tensor, tensor[-1:].expand(size - rows, *tensor.shape[1:])])
        for name, tensor in tensors.items()
    }


@dataclass(frozen=True)
class _Captured:
    """A step at one size: where it reads, what replays it, where it writes."""

    inputs: Mapping[str, Tensor]
    graph: Any
    outputs: Tensors

    def replay(self, tensors: Tensors, rows: int) -> dict[str, Tensor]:
        for name, own in self.inputs.items():
            own.copy_(tensors[name])
        self.graph.replay()
        # copies: the next replay writes into the same memory
        return {name: tensor[:rows].clone() for name, tensor in self.outputs.items()}


class StepCache:
    """Runs steps by name, captured where that is possible and wanted.

    Not for several threads at once, like the networks that the steps compute with.

    Args:
        enabled: whether to capture on CUDA; filling up happens either way, where it is True, so
            that the shapes which are captured are met in tests too.
        compiled: let torch compile steps before they are captured.
        buckets: sizes of batches.
    """

    def __init__(
        self,
        *,
        enabled: bool = False,
        compiled: bool = False,
        buckets: Sequence[int] = BUCKETS,
    ) -> None:
        self.enabled = enabled
        self.compiled = compiled
        self.captures = 0
        self.replays = 0
        self._buckets = buckets
        self._kept: OrderedDict[Any, _Captured] = OrderedDict()
        self._compiled: dict[str, Step] = {}
        self._pool: Any = None

    def run(self, name: str, step: Step, tensors: Tensors) -> dict[str, Tensor]:
        """What the step answers for these rows.

        Args:
            name: of the step and all that it depends on besides the tensors.
            step: the same under the same name, always.
            tensors: stacked.
        """
        if not self.enabled:
            return dict(step(tensors))
        rows = len(next(iter(tensors.values())))
        size = bucket_for(rows, self._buckets)
        full = filled_up(tensors, size)
        if not next(iter(full.values())).is_cuda or size not in self._buckets:
            return {key: tensor[:rows] for key, tensor in self._wrapped(name, step)(full).items()}
        key = (name, tuple((n, t.shape, t.dtype) for n, t in sorted(full.items())))
        found = self._kept.get(key)
        if found is None:
            found = self._captured(self._wrapped(name, step), full)
            self._kept[key] = found
            while len(self._kept) > _GRAPHS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        self.replays += 1
        return found.replay(full, rows)

    @property
    def holds(self) -> bool:
        """Whether there are graphs, and memory of theirs."""
        return bool(self._kept) or self._pool is not None

    def clear(self) -> None:
        """Give back the graphs' memory."""
        self._kept.clear()
        self._pool = None

    def describe(self) -> dict[str, int]:
        """How many graphs there are, were made, and how often they ran."""
        return {"graphs": len(self._kept), "captures": self.captures, "replays": self.replays}

    def _wrapped(self, name: str, step: Step) -> Step:
        if not self.compiled:
            return step
        if name not in self._compiled:
            self._compiled[name] = torch.compile(
                step, dynamic=False, mode="max-autotune-no-cudagraphs"
            )
        return self._compiled[name]

    def _captured(self, step: Step, tensors: Tensors) -> _Captured:
        inputs = {name: tensor.clone() for name, tensor in tensors.items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                step(inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # other threads of the process go on allocating: a trainer's, a metrics server's
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = step(inputs)
        self.captures += 1
        return _Captured(inputs, graph, outputs)
