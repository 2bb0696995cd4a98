"""Whoever holds the networks: stacks calls, runs their operation once, hands each its answer."""

import os
import time
import traceback
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from farm.backbones.infinity.hosting import (
    INFINITY_INPUTS,
    INFINITY_OPERATIONS,
    infinity_sizes,
)
from farm.backbones.inputs import INPUTS, Inputs, check_inputs, sizes_of
from farm.backbones.networks import Networks
from farm.backbones.operations import OPERATIONS
from farm.backbones.region_inputs import REGION_INPUTS, region_sizes
from farm.backbones.region_operations import REGION_OPERATIONS
from farm.backbones.rows import joined_rows, parted
from farm.backbones.safety_operations import SAFETY_INPUTS, SAFETY_OPERATIONS
from farm.backbones.shortage import is_short_of_memory
from farm.backbones.transfers import to_device, to_host
from farm.calls import Answer, Batch, Call, Midway, Operation, Paused, Stepped, summed
from farm.errors import EditDivergedError, FarmError, InvalidRequestError, OutOfMemoryError

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
            self._operations = {**self._operations, **REGION_OPERATIONS}
            self._inputs = {**self._inputs, **REGION_INPUTS}
            self._sizes |= region_sizes(networks.regions)
        if networks.infinity is not None:
            self._operations = {**self._operations, **INFINITY_OPERATIONS}
            self._inputs = {**self._inputs, **INFINITY_INPUTS}
            self._sizes |= infinity_sizes(networks.infinity)
        if networks.safety is not None:
            self._operations = {**self._operations, **SAFETY_OPERATIONS}
            self._inputs = {**self._inputs, **SAFETY_INPUTS}

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers in the order of the calls, one batch each.

        Raises:
            FarmError: as the first call that failed gave it.
            OutOfMemoryError: a call does not fit, though nothing else is kept.
        """
        answers: list[Answer] = []
        for call in calls:
            (outcome,) = self._run_alone(call)
            if isinstance(outcome, FarmError):
                raise outcome
            answers.append(outcome)
        return answers

    def _run_alone(self, call: Call, *, makes_room: bool = True) -> list[Outcome]:
        """One call; once more if memory ran out and room can be made."""
        try:
            return self.run_batch([call])
        except Exception as error:
            if not is_short_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
            if not (makes_room and self.make_room()):
                raise OutOfMemoryError(
                    f"{call.op} does not fit into the memory of {self._networks.device}: "
                    f"{str(error).partition(chr(10))[0]}; end what else uses it, or take a larger "
                    "one"
                ) from error
        return self._run_alone(call, makes_room=False)

    def run_batch(self, calls: Sequence[Call]) -> list[Outcome]:
        """Outcomes of calls of one key, computed in one batch to their end.

        A call with arrays that its operation cannot take fails alone. Calls that ask to be computed
        alone (static `alone`) are, one after the other.

        Raises:
            FarmError: what no call of the batch can escape, such as an unknown operation.
        """
        ended: dict[int, Outcome] = {}
        waiting: dict[Hashable, dict[int, Call | Paused]] = {None: dict(enumerate(calls))}
        while waiting:
            going = waiting.pop(next(iter(waiting)))
            for number, result in zip(going, self.run_step(list(going.values())), strict=True):
                if isinstance(result, Paused):
                    waiting.setdefault(result.key, {})[number] = result
                else:
                    ended[number] = result
        return [ended[number] for number in range(len(calls))]

    def run_step(self, items: Sequence[Call | Paused]) -> list[Outcome | Paused]:
        """Compute items of one key in one batch, up to the next step where others may come in.

        Calls of an operation of one step have their outcomes then. The others come back paused,
        to be given again together with whatever has their key by then.

        Raises:
            FarmError: as `run_batch`.
        """
        assert len({item.key for item in items}) == 1, "a batch holds items of one key"
        call = _call_of(items[0])
        refusals = [self._refusal(i) if isinstance(i, Call) else None for i in items]
        sound = [item for item, refusal in zip(items, refusals, strict=True) if refusal is None]
        size = 1 if call.static.get("alone", False) else len(items)
        results = iter(
            [
                result
                for start in range(0, len(sound), size)
                for result in self._run(call, sound[start : start + size])
            ]
        )
        return [next(results) if refusal is None else refusal for refusal in refusals]

    def make_room(self) -> bool:
        """Drop what can be computed again, for memory ran out; False if there was nothing.

        Only in the thread that computes, between two steps.
        """
        return self._networks.drop_caches()

    def promised_bytes(self) -> int:
        """Memory that is not for batches, though it may be free: caches will fill it."""
        return self._networks.caches_to_fill()

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
            "steps": networks.steps.describe(),
        }

    def _refusal(self, call: Call) -> InvalidRequestError | None:
        if call.op not in self._inputs:
            return None
        try:
            check_inputs(call, self._inputs[call.op], self._sizes)
        except InvalidRequestError as error:
            return error
        return None

    def _run(self, call: Call, items: Sequence[Call | Paused]) -> list[Outcome | Paused]:
        operation = self._operations.get(call.op)
        if operation is None:
            raise InvalidRequestError(
                f"no operation {call.op!r}; this host has {', '.join(sorted(self._operations))}"
            )
        start = time.perf_counter()
        calls = [item for item in items if isinstance(item, Call)]
        if not isinstance(operation, Stepped):
            batch = operation(self._networks, self._stacked(calls), call.static)
            return list(_outcomes(calls, batch, (), start))
        if calls:
            pauses = [Paused(call, None, None, {}, 0.0) for call in calls]
            midway = operation.begin(self._networks, self._stacked(calls), call.static)
        else:
            pauses = [item for item in items if isinstance(item, Paused)]
            state = joined_rows([pause.held for pause in pauses])
            phase = pauses[0].phase
            midway = operation.step(self._networks, state, call.static, phase)
        return self._ended(operation, pauses, midway, start)

    def _ended(
        self, operation: Stepped, pauses: Sequence[Paused], midway: Midway, start: float
    ) -> list[Outcome | Paused]:
        """Items that have taken their last step with their outcomes, the others paused anew."""
        held = parted(midway)
        done = [row for row, phase in enumerate(midway.phases) if phase is None]
        ends: dict[int, Outcome] = {}
        if done:
            calls = [pauses[row].call for row in done]
            state = joined_rows([held[row] for row in done])
            batch = operation.end(self._networks, state, calls[0].static)
            before = [summed(pauses[row].work, midway.work) for row in done]
            ends = dict(zip(done, _outcomes(calls, batch, before, start), strict=True))
        share = (time.perf_counter() - start) / len(pauses)
        results: list[Outcome | Paused] = []
        for row, pause in enumerate(pauses):
            seconds = pause.seconds + share
            if row in ends:
                outcome = ends[row]
                whole = isinstance(outcome, Answer)
                results.append(replace(outcome, seconds=seconds) if whole else outcome)
                continue
            work = summed(pause.work, midway.work)
            results.append(Paused(pause.call, midway.phases[row], held[row], work, seconds))
        return results

    def _stacked(self, calls: Sequence[Call]) -> dict[str, Tensor]:
        stacked = {
            name: np.stack([call.arrays[name] for call in calls]) for name in calls[0].arrays
        }
        return to_device(stacked, self._networks.device)


def _call_of(item: Call | Paused) -> Call:
    return item.call if isinstance(item, Paused) else item


def _outcomes(
    calls: Sequence[Call], batch: Batch, before: Sequence[Mapping[str, int]], start: float
) -> list[Outcome]:
    """An outcome for each row; `before`: work of each row's earlier steps, where it had any."""
    arrays = to_host(batch.tensors)
    share = (time.perf_counter() - start) / len(calls)
    return [
        _outcome(
            call.op,
            {n: np.asarray(a[row]) for n, a in arrays.items()},
            summed(before[row], batch.work_of(row)) if before else batch.work_of(row),
            share,
        )
        for row, call in enumerate(calls)
    ]


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
