"""Trainers of one embedding each, as a loop in this process, as coroutines and as Ray tasks."""

import asyncio
import importlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from actors.backbone import Host
from actors.executor import RemoteExecutor
from actors.sender import Sender
from farm.calls import Answer, Batch, Call, Executor, Static, Tensors
from farm.model_spec import ModelSpec
from farm.samplers.ddim import NoiseSchedule
from farm.zoo.model_sets import ModelSet

SAMPLING_STEPS = 20
_GUIDANCE = 7.5
_RATE = 1e-2


@dataclass(frozen=True)
class Load:
    """What a trainer asks, drawn from a seed.

    Attributes:
        spec: of the networks.
        steps: optimiser steps.
        alone: whether every call is computed in a batch of its own.
    """

    spec: ModelSpec
    steps: int
    alone: bool = False

    def normal(self, seed: int, *shape: int) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)

    def step_call(self, seed: int, step: int, embeds: np.ndarray) -> Call:
        """The loss of one step of null-text inversion and its gradient."""
        spec = self.spec
        alphas = NoiseSchedule.from_spec(spec).alphas_cumprod
        timestep = 50 + (seed * 7919 + step * 104729) % (spec.num_train_timesteps - 50)
        number = 100 * seed + step
        arrays = {
            "latents": self.normal(number, *spec.latent_shape),
            "timestep": np.asarray(timestep, dtype=np.int64),
            "embeds": embeds,
            "other_noise": self.normal(number + 1, *spec.latent_shape),
            "weight": np.asarray(1 - _GUIDANCE, dtype=np.float32),
            "alpha": np.asarray(alphas[timestep], dtype=np.float32),
            "alpha_prev": np.asarray(alphas[timestep - 50], dtype=np.float32),
            "target_latents": self.normal(number + 2, *spec.latent_shape),
        }
        return Call("unet.context_loss", arrays, {"alone": True} if self.alone else {})

    def sampling_call(self, seed: int) -> Call:
        """A whole sampling of the inpainting UNet under guidance: one call of many steps."""
        spec = self.spec
        moves = NoiseSchedule.from_spec(spec).denoising(SAMPLING_STEPS)
        text = (spec.tokens, spec.text_width)
        arrays = {
            "latents": self.normal(seed, *spec.latent_shape),
            "timesteps": np.asarray([m.timestep for m in moves], dtype=np.int64),
            "alphas": np.asarray([m.alpha for m in moves], dtype=np.float32),
            "alphas_prev": np.asarray([m.alpha_to for m in moves], dtype=np.float32),
            "embeds": self.normal(seed + 1, *text),
            "uncond_embeds": self.normal(seed + 2, *text),
            "guidance_scale": np.asarray(3.0, dtype=np.float32),
            "mask": np.ones((1, *spec.latent_shape[1:]), dtype=np.float32),
            "left": self.normal(seed + 3, *spec.latent_shape),
        }
        return Call("inpainting.sample", arrays)

    def noise_calls(self, seed: int) -> list[Call]:
        """What an interactive caller asks at each step of a sampling of its own."""
        spec = self.spec
        return [
            Call(
                "unet.noise",
                {
                    "latents": self.normal(seed, *spec.latent_shape),
                    "timestep": np.asarray(500, dtype=np.int64),
                    "embeds": self.normal(seed + n, spec.tokens, spec.text_width),
                },
            )
            for n in (1, 2)
        ]


@dataclass
class Trainer:
    """One embedding and its Adam; numpy, so that next to nothing is computed beside the service."""

    load: Load
    seed: int
    embeds: np.ndarray = field(init=False)
    _first: Any = 0.0
    _second: Any = 0.0
    _step: int = 0

    def __post_init__(self) -> None:
        spec = self.load.spec
        self.embeds = 0.1 * self.load.normal(self.seed, spec.tokens, spec.text_width)

    def call(self) -> Call:
        """What this step asks."""
        return self.load.step_call(self.seed, self._step, self.embeds)

    def take(self, answer: Answer) -> None:
        """Adam's step."""
        gradient = answer.arrays["grad_embeds"]
        self._step += 1
        self._first = 0.9 * self._first + 0.1 * gradient
        self._second = 0.999 * self._second + 0.001 * gradient**2
        first, second = self._first / (1 - 0.9**self._step), self._second / (1 - 0.999**self._step)
        self.embeds = self.embeds - _RATE * first / (np.sqrt(second) + 1e-8)

    def run(self, executor: Executor) -> list[float]:
        """All steps; when each had its answer."""
        times: list[float] = []
        for _ in range(self.load.steps):
            self.take(executor.run_all([self.call()])[0])
            times.append(time.time())
        return times

    async def run_async(self, executor: RemoteExecutor) -> list[float]:
        """`run` beside others."""
        times: list[float] = []
        for _ in range(self.load.steps):
            (answer,) = await executor.answers([self.call()])
            self.take(answer)
            times.append(time.time())
        return times


def run_batched(host: Host, trainers: Sequence[Trainer]) -> None:
    """The limit: one loop in this process in which all trainers take each step in one batch."""
    for _ in range(trainers[0].load.steps):
        for trainer, answer in zip(
            trainers, host.run_batch([t.call() for t in trainers]), strict=True
        ):
            assert isinstance(answer, Answer)
            trainer.take(answer)


@dataclass(frozen=True)
class Ended:
    """What became of some trainers, in wall-clock time of the machine.

    Attributes:
        start: when the first of them began.
        times: of each trainer: when each step had its answer.
        embeds: of each trainer.
    """

    start: float
    times: list[list[float]]
    embeds: list[np.ndarray]

    @property
    def seconds(self) -> float:
        """From the first start to the last answer."""
        return max(times[-1] for times in self.times) - self.start

    @property
    def rate(self) -> float:
        """Steps per second of all together."""
        return sum(map(len, self.times)) / self.seconds

    @property
    def longest_gap(self) -> float:
        """The longest that any trainer waited for an answer."""
        return max(max(np.diff([self.start, *times])) for times in self.times)


def joined(parts: Sequence[Ended]) -> Ended:
    """Trainers of several tasks."""
    return Ended(
        min(part.start for part in parts),
        [times for part in parts for times in part.times],
        [embeds for part in parts for embeds in part.embeds],
    )


@ray.remote(num_cpus=0)
class Gate:
    """Lets trainers that have arrived go at once, round after round, when it is told to."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._arrived: dict[int, list[Ended | None]] = defaultdict(list)
        self._opened = -1
        self._changed = asyncio.Condition()

    async def arrive(self, number: int, before: Ended | None) -> None:
        """A trainer is ready for a round, after another; returns when that begins."""
        async with self._changed:
            self._arrived[number].append(before)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._opened >= number)

    async def until_all(self, number: int) -> list[Ended | None]:
        """Wait until every trainer is ready for a round; what became of them in the one before."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._arrived[number]) == self._expected)
        return self._arrived[number]

    async def open(self, number: int) -> None:
        """Begin a round."""
        async with self._changed:
            self._opened = number
            self._changed.notify_all()


@ray.remote(num_cpus=0.05, max_retries=0)
def train_coroutines(backbones: Any, load: Load, seeds: Sequence[int]) -> Ended:
    """Many trainers in one process."""
    executor = RemoteExecutor(backbones, sender=Sender("training"))
    trainers = [Trainer(load, seed) for seed in seeds]

    async def together() -> list[list[float]]:
        return await asyncio.gather(*[trainer.run_async(executor) for trainer in trainers])

    start = time.time()
    times = asyncio.run(together())
    return Ended(start, times, [trainer.embeds for trainer in trainers])


@ray.remote(num_cpus=0.05, max_retries=0)
def train_task(backbones: Any, load: Load, seed: int, gate: Any, rounds: int) -> None:
    """One trainer in a process of its own; each round is begun together with the others."""
    executor = RemoteExecutor(backbones, sender=Sender("training"))
    ended = None
    for number in range(rounds):
        trainer = Trainer(load, seed)
        ray.get(gate.arrive.remote(number, ended))
        start = time.time()
        ended = Ended(start, [trainer.run(executor)], [trainer.embeds])
    ray.get(gate.arrive.remote(rounds, ended))  # a process that ends disturbs the others


def load_bench_host(model_set: ModelSet, device: str) -> Host:
    """The networks, and an operation that costs nothing: what is left is the call itself."""
    model_set.verify()
    # by name: trainers import this file and never need the networks' libraries
    networks, operations, host = (
        importlib.import_module(f"farm.backbones.{name}")
        for name in ("networks", "operations", "host")
    )
    loaded = networks.load_networks(model_set.folder, model_set.spec, device)
    return host.OperationHost(loaded, {**operations.OPERATIONS, "benchmark.wire": wire})


def wire(networks: Any, tensors: Tensors, static: Static) -> Batch:
    """The loss and gradient of a quadratic: as many bytes come back as were sent."""
    del networks, static
    leaf = tensors["leaf"]
    return Batch({"loss": (leaf**2).flatten(1).mean(1), "grad_leaf": leaf * 2}, {})
