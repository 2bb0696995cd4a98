"""How much of a job's time is the networks' own, how it grows with nodes, what an edit adds.

    python -m benchmarks.farm_efficiency --json out/bench/farm_efficiency.json

Three parts, each on a Ray of its own:

- 64 short scenes edits, warm, against one backbone: its busy time over the wall time. Trainers and
  driver share what the backbone leaves, so this says what they take from it.
- Simulated compute on 1, 2 and 4 logical nodes with one backbone each: a step takes half a second,
  or two, and no core, so all nodes fit this machine. Steps a second once all trainers' processes
  stand, and as long as further edits wait, over those of one node times nodes. What calls cost is
  paid by this machine's cores for all nodes together, so it grows with their number, as it would
  not where each has its own: the longer steps show how much of what is missing is that.
- Edits that do nothing, one after the other and many at once: what scheduling one costs. And the
  bytes that an edit moves: its task, its calls with their answers, its objects in the store.
"""

import json
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import ray
import typer

from actors.calls import result_of
from actors.edits import StoredEdit, load_host, open_model_set_farm
from actors.farm_session import FarmSession, open_farm
from actors.flight import Flight
from actors.local import local_ray
from actors.logical_nodes import logical_cluster
from benchmarks.concurrent_edits import prepared_edits
from benchmarks.loads.meeting import Meeting
from cluster.table import TABLE
from farm.calls import Answer, Call, Executor, Paused, run
from farm.errors import EditFailedError, FarmError
from farm.runner import PreparedEdit, run_edit
from farm.storage.local import LocalStore
from farm.zoo.model_sets import ModelSet, open_model_set
from jobs.console import FarmCommand, check_file, command_app, print_json, say, write_file
from jobs.dispatch import Dispatcher, Limits

TENANT = "default"
_PARAMETERS = {"num_steps": 8, "inner_steps": 6}
_WARM_SEED = 999
_IN_FLIGHT = 8
_STEPS = {"": (0.5, 20), "_long": (2.0, 8)}
"""Seconds of a simulated step, and steps of an edit, by what follows the figures' names."""
_ROUNDS = 3  # of edits, one after the other in each trainer's process
_NODE_CPUS = 8  # as many idle processes does Ray keep on a node
_SPARE_PROCESSES = 2  # of a node, as a farm has that has run for a while
_NO_OPS = 200
_FAKE = TABLE.backbone_on_gpu.model_copy(update={"num_cpus": 0})

app = command_app()


@dataclass(frozen=True)
class Asleep:
    """A backbone whose every step takes the same time, whatever the batch, and no core."""

    device: str
    step_seconds: float = 0.5

    def describe(self) -> dict[str, Any]:
        return {"parameters": {}}

    def make_room(self) -> bool:
        return False

    def promised_bytes(self) -> int:
        return 0

    def run_batch(self, calls: Sequence[Call]) -> list[Answer | FarmError]:
        time.sleep(self.step_seconds)
        each = self.step_seconds / len(calls)
        return [Answer(dict(call.arrays), {"step": 1}, each) for call in calls]

    def run_step(self, items: Sequence[Call | Paused]) -> list[Answer | FarmError]:
        return self.run_batch([item for item in items if isinstance(item, Call)])


def simulated_edit(
    request: Any,
    executor: Executor,
    report_progress: Callable[..., None],
    should_stop: Callable[[], bool],
) -> list[float]:
    """So many steps, one after the other; or, handed a `Meeting`, a wait for the others.

    Returns:
        When it began, and when each step ended, in wall-clock time of the machine; when all met.
    """
    del report_progress, should_stop
    if not isinstance(request, int):
        return [ray.get(request.join.remote())]
    times = [time.time()]
    call = Call("sim.step", {"x": np.zeros(64, np.float32)}, {"priority": "batch"})
    for _ in range(request):
        run(executor, call)
        times.append(time.time())
    return times


def measure_real_edits(models: ModelSet, number: int) -> dict[str, float]:
    """Short edits through the job's own loop, warm."""
    warm = prepared_edits(models, _IN_FLIGHT, _WARM_SEED, {"num_steps": 2, "inner_steps": 1})
    edits = prepared_edits(models, number, 21, dict(_PARAMETERS))
    with local_ray(), open_model_set_farm(models) as farm, _folder() as folder:
        _run(farm, warm, LocalStore(folder / "warm"))
        (before,) = farm.stats()
        seconds = _run(farm, edits, LocalStore(folder / "store"))
        (after,) = farm.stats()
    busy = after.busy_seconds - before.busy_seconds
    return {
        "edits": number,
        "seconds": round(seconds, 2),
        "compute_seconds": round(busy, 2),
        "efficiency": round(busy / seconds, 3),
        "mean_batch": round((after.items - before.items) / (after.batches - before.batches), 2),
    }


def _run(farm: FarmSession, edits: list[tuple[str, PreparedEdit]], store: LocalStore) -> float:
    """Seconds for all."""
    started = time.monotonic()
    flight = Flight(farm, StoredEdit(store, TENANT))
    for ended in Dispatcher(flight, Limits(in_flight=_IN_FLIGHT)).run(edits):
        if isinstance(ended.outcome, FarmError):
            raise ended.outcome
    return time.monotonic() - started


def measure_nodes(nodes: int, trainers: int, step_seconds: float, steps: int) -> float:
    """Simulated steps a second, with one backbone and so many trainers for each of the nodes."""
    at_once = nodes * trainers
    with (
        _cluster(nodes) as address,
        local_ray(address=address),
        open_farm(
            partial(Asleep, step_seconds=step_seconds),
            replicas=nodes,
            placement=_FAKE,
            device="cpu",
        ) as farm,
    ):
        _meet(farm, at_once + _SPARE_PROCESSES * nodes)
        began, edits = _times_of(farm, at_once * _ROUNDS, steps=steps, at_once=at_once)
    last_began = max(times[0] for times in edits)
    made = sum(ended <= last_began for times in edits for ended in times[1:])
    return made / (last_began - began)


def _meet(farm: FarmSession, number: int) -> None:
    """Have so many trainers' processes started, in which edits follow."""
    meeting = Meeting.remote(number)
    meetings = [(f"meeting-{n}", meeting) for n in range(number)]
    for _, _, outcome in farm.run_many(meetings, simulated_edit, in_flight=number):
        if isinstance(outcome, FarmError):
            raise outcome


def _times_of(
    farm: FarmSession, number: int, *, steps: int, at_once: int
) -> tuple[float, list[list[float]]]:
    """When so many edits were asked for, and the times of each."""
    requests = [(f"edit-{n}", steps) for n in range(number)]
    began = time.time()
    edits: list[list[float]] = []
    for _, _, outcome in farm.run_many(requests, simulated_edit, in_flight=at_once):
        if isinstance(outcome, FarmError):
            raise outcome
        edits.append(outcome)
    return began, edits


def measure_scheduling() -> dict[str, float]:
    """Edits of no step."""
    with local_ray(), open_farm(Asleep, placement=_small()) as farm:
        for n in range(8):
            result_of(farm.submit(f"warm-{n}", simulated_edit, 0))
        started = time.monotonic()
        for n in range(_NO_OPS):
            result_of(farm.submit(f"one-{n}", simulated_edit, 0))
        serial = (time.monotonic() - started) / _NO_OPS
        _meet(farm, 16)
        began, edits = _times_of(farm, _NO_OPS, steps=0, at_once=16)
    many = (max(times[-1] for times in edits) - began) / _NO_OPS
    return {"scheduling_ms": round(1000 * serial, 2), "scheduling_ms_at_16": round(1000 * many, 2)}


class CountingBytes:
    """An executor that counts what crosses."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.calls = self.sent = self.received = 0

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        answers = self.executor.run_all(calls)
        self.calls += len(calls)
        self.sent += sum(len(pickle.dumps(call)) for call in calls)
        self.received += sum(len(pickle.dumps(answer)) for answer in answers)
        return answers


def measure_bytes(models: ModelSet) -> dict[str, float]:
    """What one short edit moves."""
    ((_, edit),) = prepared_edits(models, 1, 21, dict(_PARAMETERS))
    counting = CountingBytes(load_host(models, "cpu"))  # type: ignore[arg-type]
    with _folder() as folder:
        store = LocalStore(folder)
        run_edit(edit, store, counting, tenant=TENANT)
        kept = [entry.size for entry in store.entries("tenants/")]
    return {
        "task_bytes": len(pickle.dumps(edit)),
        "calls_per_edit": counting.calls,
        "sent_bytes": counting.sent,
        "received_bytes": counting.received,
        "stored_bytes": sum(kept),
        "stored_objects": len(kept),
    }


def _small() -> Any:
    return TABLE.backbone_on_cpu.model_copy(update={"num_cpus": 0.1})


@contextmanager
def _folder() -> Generator[Path, None, None]:
    folder = Path(tempfile.mkdtemp(prefix="editfarm-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _cluster(nodes: int) -> Generator[str, None, None]:
    """So many logical nodes with an accelerator each that is none."""
    memory: dict[str, Any] = {"object_store_memory": 100 * 2**20}
    with logical_cluster(num_cpus=0, num_gpus=0, include_dashboard=False, **memory) as cluster:
        for _ in range(nodes):
            cluster.add_node(num_cpus=_NODE_CPUS, num_gpus=1, **memory)
        yield str(cluster.address)


@app.command(cls=FarmCommand)
def farm_efficiency(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    edits: Annotated[int, typer.Option(min=2, help="Scenes edits.")] = 64,
    trainers: Annotated[int, typer.Option(min=1, help="Of each simulated node.")] = 6,
) -> None:
    """Measure what the farm adds to the networks' own time."""
    if json_file is not None:
        check_file(json_file)
    models = open_model_set("scenes")
    figures: dict[str, float] = {"cores": os.cpu_count() or 1}
    for name, (seconds, steps) in _STEPS.items():
        rates = {nodes: measure_nodes(nodes, trainers, seconds, steps) for nodes in (1, 2, 4)}
        say(f"simulated steps of {seconds} s a second by nodes: {rates}")
        for nodes, rate in rates.items():
            figures[f"steps_per_second_{nodes}{name}"] = round(rate, 2)
            figures[f"linear_{nodes}{name}"] = round(rate / (nodes * rates[1]), 3)
            figures[f"of_possible_{nodes}{name}"] = round(rate * seconds / (nodes * trainers), 3)
    for part in (measure_scheduling, partial(measure_real_edits, models, edits)):
        found = part()
        say(str(found))
        figures |= found
    figures |= measure_bytes(models)
    if figures["calls_per_edit"] < 1:
        raise EditFailedError("an edit without a call measures nothing")
    print_json(figures)
    if json_file is not None:
        write_file(json_file, json.dumps(figures).encode())


if __name__ == "__main__":
    app()
