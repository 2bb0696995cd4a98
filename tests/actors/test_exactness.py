"""Every operation through the batcher in mixed company: values and gradients are those of alone."""

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest

from actors.batcher import Batcher, Outcome
from actors.limits import Limits
from actors.sender import Sender
from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.calls import Answer, Call
from farm.diffusion import DiffusionClient
from farm.regions import RegionsClient
from tests.farm.backbones import test_operations as diffusion
from tests.farm.backbones import test_region_operations as regions
from tests.farm.backbones.infinity import test_operations as infinity
from tests.tiny_infinity import tiny_networks as tiny_infinity_networks
from tests.tiny_regions import tiny_region_networks

BATCHED = 5e-5
"""Relative, single precision: definitions.md allows 1e-5 an operation, samplings take three."""


def build_networks() -> Networks:
    plain = tiny_region_networks()
    return Networks(
        **{**vars(plain), "infinity": tiny_infinity_networks()}  # caches and all
    )


def all_calls(host: OperationHost, networks: Networks, *, alone: bool) -> list[Call]:
    """Three different calls of every operation."""
    recorder = regions.Recorder(host)
    near = DiffusionClient(recorder, networks.spec, alone=alone)
    far = RegionsClient(recorder, networks.spec, alone=alone)
    for item in range(3):
        for ask in diffusion.ASKS.values():
            ask(near, item)
        for ask in regions.ASKS.values():
            ask(far, item)
    static = {"alone": True} if alone else {}
    for seed in range(3):
        for make in (
            infinity.prompt_call,
            infinity.lora_call,
            infinity.edit_call,
            infinity.tied_call,
            infinity.odds_call,
            infinity.accuracy_call,
            infinity.decode_call,
        ):
            call = make(seed)
            recorder.calls.append(Call(call.op, call.arrays, {**call.static, **static}))
    return recorder.calls


async def ask_in_company(
    host: OperationHost, calls: Sequence[Call], limits: Limits, seed: int
) -> list[Outcome]:
    """All at once, in any order, of several tenants and priorities."""
    batcher = Batcher(host.run_step, limits)
    order = list(range(len(calls)))
    random.Random(seed).shuffle(order)
    senders = [Sender("a"), Sender("b"), Sender("a", "interactive")]
    outcomes = await asyncio.gather(
        *[batcher.answer_all([calls[n]], senders[n % 3]) for n in order]
    )
    stats = batcher.stats()
    await batcher.close()
    assert stats.failed == 0, outcomes
    found = dict(zip(order, [one for (one,) in outcomes], strict=True))
    return [found[n] for n in range(len(calls))]


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(max_batch=2), Limits(pad=True)], ids=["free", "two", "padded"]
)
async def test_mixed_neighbours_change_no_value_and_no_gradient(limits: Limits) -> None:
    networks = build_networks()
    calls = all_calls(OperationHost(networks), networks, alone=False)
    expected = OperationHost(build_networks()).run_all(calls)
    found = await ask_in_company(OperationHost(build_networks()), calls, limits, seed=1)
    assert {call.op for call in calls} > {"unet.value_loss", "inpainting.sample", "infinity.edit"}
    for call, one, many in zip(calls, expected, found, strict=True):
        assert isinstance(many, Answer)
        assert one.arrays.keys() == many.arrays.keys()
        for name, wanted in one.arrays.items():
            difference = np.abs(many.arrays[name].astype(float) - wanted).max()
            assert difference <= BATCHED * np.abs(wanted).max(), (call.op, name)


async def test_deterministic_calls_are_equal_to_the_bit_whatever_the_load() -> None:
    networks = build_networks()
    calls = all_calls(OperationHost(networks), networks, alone=True)
    load = all_calls(OperationHost(networks), networks, alone=False)
    expected = OperationHost(build_networks()).run_all(calls)
    host = OperationHost(build_networks())
    mixed = [call for pair in zip(calls, load, strict=True) for call in pair]
    found = await ask_in_company(host, mixed, Limits(pad=True), seed=2)
    for call, one, many in zip(calls, expected, found[::2], strict=True):
        assert isinstance(many, Answer)
        for name, wanted in one.arrays.items():
            assert np.array_equal(many.arrays[name], wanted), (call.op, name)
