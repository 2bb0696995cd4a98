"""Each operation one by one and all at once; what is counted and what is kept."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.calls import Answer, Meter
from farm.diffusion import DiffusionClient, NoiseQuery
from farm.errors import InvalidRequestError
from tests.farm.backbones.queries import (
    Recorder,
    context_query,
    edit_query,
    image,
    noise_query,
    normal,
    value_query,
)
from tests.tiny import TOKENS, WIDTH, tiny_networks, tiny_spec

BATCHED = 1e-5
"""definitions.md: a single operation, relative, in single precision."""


ASKS: dict[str, Callable[[DiffusionClient, int], Any]] = {
    "clip.embed_tokens": lambda c, i: c.embed_prompt([1, 2, 3 + i, 27, 28, 28, 28, 28]),
    "clip.image_tokens": lambda c, i: c.image_tokens(image(i)),
    "vae.encode": lambda c, i: c.encode(image(i)),
    "vae.decode": lambda c, i: c.decode(normal(i, 4, 8, 8)),
    "unet.noise": lambda c, i: c.noise(noise_query(i)),
    "unet.value_loss": lambda c, i: c.value_loss(value_query(i), normal(i, TOKENS, WIDTH)),
    "unet.source_noise": lambda c, i: c.source_noises([noise_query(i)]),
    "unet.context_loss": lambda c, i: c.context_loss(context_query(i), normal(i, TOKENS, WIDTH)),
    "unet.edit_noise": lambda c, i: c.edit_noises([edit_query(i)]),
}


@pytest.mark.parametrize("op", ASKS)
def test_a_batch_of_different_items_is_the_items_one_by_one(
    op: str, host: OperationHost, networks: Networks
) -> None:
    recorder = Recorder(host)
    for item in range(3):
        ASKS[op](DiffusionClient(recorder, networks.spec), item)
    calls = recorder.calls
    assert [call.op for call in calls] == [op] * 3
    single = host.run_all(calls)
    batched = host.run_batch(calls)
    for one, many in zip(single, batched, strict=True):
        assert isinstance(many, Answer)
        assert one.arrays.keys() == many.arrays.keys()
        assert one.work == many.work
        for name, expected in one.arrays.items():
            found = many.arrays[name]
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= BATCHED * np.abs(expected).max(), name


def test_work_is_the_rows_that_the_unet_computes(host: OperationHost, networks: Networks) -> None:
    rows: list[int] = []
    networks.unet.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    recorder = Recorder(host)
    meter = Meter(recorder)
    client = DiffusionClient(meter, networks.spec)
    ops = [op for op in ASKS if op.startswith("unet.")]
    for item in range(3):
        for op in ops:
            ASKS[op](client, item)
    # once: targets' maps of a training step, a source or two of an edit; after that they are known
    sources = sum(2 if item == 0 else 1 for item in range(3))
    once = 3 * len(ops) + 3
    assert meter.work["unet_forward"] == sum(rows) == once + 3 + sources
    rows.clear()
    forwards = sum(answer.work["unet_forward"] for answer in host.run_all(recorder.calls))
    assert forwards == sum(rows) == once


def test_kept_maps_do_not_hold_on_to_their_batch(host: OperationHost, networks: Networks) -> None:
    recorder = Recorder(host)
    client = DiffusionClient(recorder, networks.spec)
    queries = [noise_query(item) for item in range(3)]
    client.noises([NoiseQuery(q.latents, q.timestep, q.embeds) for q in queries], keep_maps=True)
    host.run_batch(recorder.calls)
    per_item = 3 * 2 * 16 * TOKENS * 4  # layers, heads, pixels
    assert networks.maps.bytes == 3 * per_item
    kept = [m for maps in networks.maps._kept.values() for m in maps]
    assert sum(m.untyped_storage().nbytes() for m in kept) == 3 * per_item


def test_maps_under_a_value_input_of_their_own_are_not_kept(client: DiffusionClient) -> None:
    with pytest.raises(InvalidRequestError, match="keep_maps"):
        client.noise(noise_query(0), keep_maps=True)


def test_a_velocity_model_is_asked_the_same_way() -> None:
    networks = tiny_networks(tiny_spec("v_prediction"))
    client = DiffusionClient(OperationHost(networks), networks.spec)
    query = noise_query(1)
    with torch.no_grad():
        expected = networks.unet(
            query.latents[None], torch.tensor([query.timestep]), query.embeds[None]
        )[0]
    found = client.noise(NoiseQuery(query.latents, query.timestep, query.embeds))
    torch.testing.assert_close(found, expected)
