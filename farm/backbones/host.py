"""Whoever holds the networks: stacks calls, runs their operation once, hands each its answer."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from farm.backbones.inputs import INPUTS, Inputs, check_inputs, sizes_of
from farm.backbones.networks import Networks
from farm.backbones.operations import OPERATIONS
from farm.backbones.region_inputs import REGION_INPUTS, region_sizes
from farm.backbones.region_operations import REGION_OPERATIONS
from farm.calls import Answer, Call, Operation
from farm.errors import EditDivergedError, FarmError, InvalidRequestError

Outcome: TypeAlias = Answer | FarmError
"""What became of one call of a batch."""


class OperationHost:
    """Answers calls with the networks of this process.

    It is the inline `Executor`, which gives every call a batch of its own, and what an actor runs
    its batches with.

    Args:
        networks: what the operations compute with.
        operations: by name.
        inputs: what each operation takes; calls of one that is not named here go unchecked.
    """

    def __init__(
        self,
        networks: Networks,
        operations: Mapping[str, Operation] = OPERATIONS,
        inputs: Mapping[str, Inputs] = INPUTS,
    ) -> None:
        self._networks = networks
        self._operations = operations
        self._inputs = inputs
        self._sizes = sizes_of(networks)
        if networks.regions is not None:
            self._operations = {**operations, **REGION_OPERATIONS}
            self._inputs = {**inputs, **REGION_INPUTS}
            self._sizes |= region_sizes(networks.regions)

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers in the order of the calls, one batch each.

        Raises:
            FarmError: as the first call that failed gave it.
        """
        answers: list[Answer] = []
        for call in calls:
            (outcome,) = self.run_batch([call])
            if isinstance(outcome, FarmError):
                raise outcome
            answers.append(outcome)
        return answers

    def run_batch(self, calls: Sequence[Call]) -> list[Outcome]:
        """Outcomes of calls of one key, computed in one batch.

        A call with arrays that its operation cannot take fails alone. Calls that ask to be computed
        alone (static `alone`) are, one after the other.

        Raises:
            FarmError: what no call of the batch can escape, such as an unknown operation.
        """
        refusals = [self._refusal(call) for call in calls]
        sound = [call for call, refusal in zip(calls, refusals, strict=True) if refusal is None]
        size = 1 if calls[0].static.get("alone", False) else len(calls)
        answers = iter(
            [
                outcome
                for start in range(0, len(sound), size)
                for outcome in self._run(sound[start : start + size])
            ]
        )
        return [next(answers) if refusal is None else refusal for refusal in refusals]

    def describe(self) -> dict[str, Any]:
        """Which process holds which networks, how large each is, and how full its caches are."""
        networks = self._networks
        return {
            "pid": os.getpid(),
            "model_set": networks.spec.name,
            "device": networks.device,
            "parameters": {
                name: sum(p.numel() for p in module.parameters())
                for name, module in networks.modules().items()
            },
            "operations": sorted(self._operations),
            "map_cache": networks.maps.describe(),
            "source_cache": networks.sources.describe(),
        }

    def _refusal(self, call: Call) -> InvalidRequestError | None:
        if call.op not in self._inputs:
            return None
        try:
            check_inputs(call, self._inputs[call.op], self._sizes)
        except InvalidRequestError as error:
            return error
        return None

    def _run(self, calls: Sequence[Call]) -> list[Outcome]:
        first = calls[0]
        assert len({call.key for call in calls}) == 1, "a batch holds calls of one key"
        operation = self._operations.get(first.op)
        if operation is None:
            raise InvalidRequestError(
                f"no operation {first.op!r}; this host has {', '.join(sorted(self._operations))}"
            )
        start = time.perf_counter()
        batch = operation(self._networks, self._stacked(calls), first.static)
        arrays = {name: tensor.cpu().numpy() for name, tensor in batch.tensors.items()}
        share = (time.perf_counter() - start) / len(calls)
        return [
            _outcome(
                first.op,
                {n: np.asarray(a[row]) for n, a in arrays.items()},
                batch.work_of(row),
                share,
            )
            for row in range(len(calls))
        ]

    def _stacked(self, calls: Sequence[Call]) -> dict[str, Tensor]:
        stacked = {
            name: torch.from_numpy(np.stack([call.arrays[name] for call in calls]))
            for name in calls[0].arrays
        }
        return {
            name: tensor.to(self._networks.device, _computed_in(tensor.dtype))
            for name, tensor in stacked.items()
        }


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point else dtype


def _outcome(
    op: str, arrays: dict[str, np.ndarray], work: Mapping[str, int], seconds: float
) -> Outcome:
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        return EditDivergedError(
            f"{op} gave values that are not finite in {', '.join(bad)}: lower the learning rate or "
            "the guidance scale, or take another seed"
        )
    return Answer(arrays, work, seconds)
