"""The gradient service against loops in one process: throughput, overhead, a kill, a mixed load.

    python -m benchmarks.gradient_service --json out/bench/gradient_service.json

One run, one farm with one backbone of the scenes set, one thread of computation everywhere. The
figures are ratios of that run, in rounds that alternate; some seven minutes on two cores.
"""

import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import ray
import torch
import typer

from actors.backbone import Host
from actors.calls import result_of, results_of
from actors.executor import RemoteExecutor
from actors.farm_session import FarmSession, open_farm
from actors.local import local_ray
from actors.sender import Sender
from benchmarks.loads.gradients import (
    Ended,
    Gate,
    Load,
    Trainer,
    joined,
    load_bench_host,
    run_batched,
    train_coroutines,
    train_task,
)
from farm.calls import Call
from farm.zoo.model_sets import open_model_set
from jobs.console import FarmCommand, check_file, command_app, print_json, say, write_file

_CALM, _CALM_SECONDS = 15.0, 30.0
"""Percent of the machine that may be busy before something is measured, and the longest wait."""
_LEAF = (77, 768)
"""Stable Diffusion's text embeddings: 236 544 bytes in single precision."""

app = command_app()


@dataclass(frozen=True)
class Bench:
    """What all measurements need.

    Attributes:
        farm: with one backbone.
        host: the same networks in this process.
        load: of a trainer.
        rounds: how often each throughput is measured.
    """

    farm: FarmSession
    host: Host
    load: Load
    rounds: int

    def in_process(self, number: int) -> float:
        """Steps per second of trainers that share every batch of a loop in this process."""
        trainers = [Trainer(self.load, seed) for seed in range(number)]
        start = time.perf_counter()
        run_batched(self.host, trainers)
        return number * self.load.steps / (time.perf_counter() - start)

    def coroutines(self, number: int) -> Ended:
        """Trainers in one Ray task."""
        return result_of(train_coroutines.remote(self.farm.backbones, self.load, range(number)))


class TaskTrainers:
    """Trainers in a Ray task each, in rounds.

    Their processes live from the first round to the last: each takes seconds of a core to start and
    to end, which is not what is measured.
    """

    def __init__(self, bench: Bench, number: int, rounds: int) -> None:
        self._gate: Any = Gate.remote(number)
        self._round = 0
        self._tasks = [
            train_task.remote(bench.farm.backbones, bench.load, seed, self._gate, rounds)
            for seed in range(number)
        ]
        self._until_all(0)

    def run(self) -> Ended:
        """The next round."""
        result_of(self._gate.open.remote(self._round))
        self._round += 1
        return joined([one for one in self._until_all(self._round) if one is not None])

    def end(self) -> None:
        """After the last round."""
        result_of(self._gate.open.remote(self._round))
        results_of(self._tasks)

    def _until_all(self, number: int) -> list[Ended | None]:
        """Wait until all are ready for a round; a trainer that ends before that has failed."""
        arrived = self._gate.until_all.remote(number)
        (first, *_), _ = ray.wait([arrived, *self._tasks], num_returns=1)
        return result_of(arrived if first == arrived else first)


def measure_throughput(bench: Bench, number: int) -> dict[str, float]:
    """Rates of trainers by where they run, in rounds that alternate; the median of each."""
    tasks = TaskTrainers(bench, number, bench.rounds + 1)
    ways: dict[str, Callable[[], float]] = {
        "batched_limit": lambda: bench.in_process(number),
        "one_loop": lambda: bench.in_process(1),
        "coroutines": lambda: bench.coroutines(number).rate,
        "tasks": lambda: tasks.run().rate,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for one in range(bench.rounds + 1):
        for name, way in ways.items():
            wait_until_calm()
            before = bench.farm.stats()[0]
            rate = way()
            after = bench.farm.stats()[0]
            batches = after.batches - before.batches
            mean = (after.items - before.items) / batches if batches else 0
            busy = (after.busy_seconds - before.busy_seconds) * rate / (number * bench.load.steps)
            if one:  # the first round starts processes and allocates
                rates[name].append(rate)
                say(f"{name} {number}: {rate:.1f} steps/s, mean batch {mean:.1f}, busy {busy:.2f}")
    tasks.end()
    return {name: statistics.median(found) for name, found in rates.items()}


def wait_until_calm() -> None:
    """Wait for processes that still start or end after what was measured before."""
    deadline = time.monotonic() + _CALM_SECONDS
    while psutil.cpu_percent(interval=0.5) > _CALM and time.monotonic() < deadline:
        pass


def measure_overhead(bench: Bench, calls: int) -> dict[str, float]:
    """Wall time of a call beyond its computation, one caller, 236 kB each way."""
    wait_until_calm()
    executor = bench.farm.executor()
    leaf = np.random.default_rng(0).standard_normal(_LEAF, dtype=np.float32)
    costs: list[float] = []
    for _ in range(calls + 20):
        start = time.perf_counter()
        (answer,) = executor.run_all([Call("benchmark.wire", {"leaf": leaf})])
        costs.append(1000 * (time.perf_counter() - start - answer.seconds))
    costs = sorted(costs[20:])
    return {
        "call_overhead_p50_ms": costs[calls // 2],
        "call_overhead_p90_ms": costs[calls * 9 // 10],
    }


def measure_kill(bench: Bench, number: int) -> dict[str, float]:
    """The longest wait of a caller when the backbone is killed, and what that changed.

    Calls are computed alone here, so that nothing but the kill could change anything.
    """
    bench = replace(bench, load=replace(bench.load, alone=True))
    wait_until_calm()
    undisturbed = bench.coroutines(number)
    running = train_coroutines.remote(bench.farm.backbones, bench.load, range(number))
    half = bench.farm.stats()[0].items + number * bench.load.steps // 2
    while bench.farm.stats()[0].items < half:
        ray.wait([running], timeout=0.02)
    ray.kill(bench.farm.backbones[0], no_restart=False)
    killed = result_of(running)
    difference = max(
        float(np.abs(one - other).max())
        for one, other in zip(undisturbed.embeds, killed.embeds, strict=True)
    )
    return {
        "kill_stall_seconds": killed.longest_gap,
        "undisturbed_longest_gap_seconds": undisturbed.longest_gap,
        "kill_largest_difference": difference,
    }


def measure_mixed(bench: Bench, number: int, samplings: int) -> dict[str, float]:
    """An interactive caller beside trainers: its latency and their throughput, against alone."""
    user = RemoteExecutor(bench.farm.backbones, sender=Sender("user", "interactive"))

    def whole(seed: int) -> float:
        start = time.perf_counter()
        user.run_all([bench.load.sampling_call(seed)])
        return time.perf_counter() - start

    def stepwise(seed: int) -> float:
        start = time.perf_counter()
        for step in range(20):
            user.run_all(bench.load.noise_calls(seed + step))
        return time.perf_counter() - start

    found: dict[str, float] = {}
    for name, sample in (("", whole), ("stepwise_", stepwise)):
        wait_until_calm()
        alone = statistics.median(sample(seed) for seed in range(5))
        pause = 3 * alone  # somebody looks at what came
        rates: list[float] = []
        latencies: list[float] = []
        running = _Endless(bench, number)
        for _ in range(2):
            rates.append(running.rate(2 * alone + 2))
            start, items = time.perf_counter(), running.steps()
            for seed in range(samplings):
                latencies.append(sample(seed))
                time.sleep(pause)
            rates.append((running.steps() - items) / (time.perf_counter() - start))
        running.stop()
        latency = statistics.median(latencies)
        found |= {
            f"mixed_{name}interactive_alone_seconds": alone,
            f"mixed_{name}interactive_seconds": latency,
            f"mixed_{name}interactive_latency_ratio": latency / alone,
            f"mixed_{name}batch_throughput_ratio": (rates[1] + rates[3]) / (rates[0] + rates[2]),
        }
    return found


class _Endless:
    """Trainers in this process's threads that go on until they are stopped."""

    def __init__(self, bench: Bench, number: int) -> None:
        self._bench = bench
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._train, args=(seed,)) for seed in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def steps(self) -> int:
        return self._bench.farm.stats()[0].items_by_op["unet.context_loss"]

    def rate(self, seconds: float) -> float:
        start, steps = time.perf_counter(), self.steps()
        time.sleep(seconds)
        return (self.steps() - steps) / (time.perf_counter() - start)

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _train(self, seed: int) -> None:
        trainer = Trainer(self._bench.load, seed)
        executor = RemoteExecutor(self._bench.farm.backbones, sender=Sender("training"))
        while not self._done.is_set():
            trainer.take(executor.run_all([trainer.call()])[0])


def figures_of(bench: Bench, number: int, quick: bool) -> dict[str, Any]:
    """All figures of a run."""
    rates = measure_throughput(bench, number)
    limit = rates["batched_limit"]
    figures: dict[str, Any] = {
        f"ratio_to_batched_limit_at_{number}": rates["coroutines"] / limit,
        f"ratio_to_batched_limit_at_{number}_tasks": rates["tasks"] / limit,
        f"ratio_to_one_loop_at_{number}": rates["coroutines"] / rates["one_loop"],
        **{f"{name}_steps_per_second": rate for name, rate in rates.items()},
        **measure_overhead(bench, 100 if quick else 400),
        **measure_mixed(bench, 8, 2 if quick else 6),
        **measure_kill(bench, 4),
    }
    return {name: round(value, 7) for name, value in figures.items()}


@app.command(cls=FarmCommand)
def gradient_service(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    trainers: Annotated[int, typer.Option(min=2)] = 16,
    steps: Annotated[int, typer.Option(min=4)] = 30,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    *,
    quick: Annotated[bool, typer.Option(help="Less of everything: to see that it works.")] = False,
) -> None:
    """Measure what the gradient service costs and gives."""
    if json_file is not None:
        check_file(json_file)
    torch.set_num_threads(1)
    models = open_model_set("scenes")
    build = partial(load_bench_host, models)
    host = build("cpu")
    if quick:
        steps, rounds = 10, 1
    with local_ray(), open_farm(build) as farm:
        bench = Bench(farm, host, Load(models.spec, steps), rounds)
        figures = figures_of(bench, trainers, quick)
        figures |= {"cores": os.cpu_count() or 1, "device": farm.device}
    print_json(figures)
    if json_file is not None:
        write_file(json_file, json.dumps(figures).encode())


if __name__ == "__main__":
    app()
