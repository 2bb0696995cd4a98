"""Each operation against plain torch and diffusers, and one by one against all at once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.calls import Answer, Call
from farm.diffusion import DiffusionClient, EditQuery, NoiseQuery, ValueQuery
from farm.errors import InvalidRequestError
from farm.samplers.ddim import ddim_step
from farm.samplers.guidance import guide
from tests.tiny import TOKENS, WIDTH, tiny_networks, tiny_spec, tiny_unet

TIMESTEPS = (901, 451, 1)
ALPHAS = ((0.05, 0.12), (0.3, 0.4), (0.998, 0.9991))
BATCHED = 1e-5
"""definitions.md: a single operation, relative, in single precision."""


@pytest.fixture
def networks() -> Networks:
    return tiny_networks()


@pytest.fixture
def host(networks: Networks) -> OperationHost:
    return OperationHost(networks)


@pytest.fixture
def client(host: OperationHost, networks: Networks) -> DiffusionClient:
    return DiffusionClient(host, networks.spec)


class Recorder:
    """An executor that keeps the calls of a client."""

    def __init__(self, host: OperationHost) -> None:
        self.host, self.calls = host, list[Call]()

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        self.calls.extend(calls)
        return self.host.run_all(calls)


def normal(item: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(item + 17 * len(shape)))


def noise_query(item: int) -> NoiseQuery:
    latents, embeds = normal(item, 4, 8, 8), normal(item, TOKENS, WIDTH)
    return NoiseQuery(latents, TIMESTEPS[item], embeds, normal(item + 3, TOKENS, WIDTH))


def value_query(item: int, weight: float = 1.0) -> ValueQuery:
    return ValueQuery(
        latents=normal(item, 4, 8, 8),
        timestep=TIMESTEPS[item],
        embeds=normal(item, TOKENS, WIDTH),
        noise_uncond=normal(item + 10, 4, 8, 8),
        guidance_scale=7.5 - item,
        alpha=ALPHAS[item][0],
        alpha_prev=ALPHAS[item][1],
        target_latents=normal(item + 20, 4, 8, 8),
        map_latents=normal(item + 30, 4, 8, 8),
        map_timestep=TIMESTEPS[item] // 2,
        attention_weight=weight * (item + 1),
    )


def edit_query(item: int) -> EditQuery:
    generator = torch.Generator().manual_seed(item)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    return EditQuery(
        latents=normal(item, 2, 4, 8, 8),
        timestep=TIMESTEPS[item],
        embeds=normal(item, 2, TOKENS, WIDTH),
        uncond_embeds=normal(item + 5, TOKENS, WIDTH),
        value_embeds=normal(item + 6, 2, TOKENS, WIDTH),
        mapper=uniform(TOKENS, TOKENS),
        refine_alpha=uniform(TOKENS).round(),
        equalizer=2 * uniform(TOKENS),
        cross_alpha=torch.full((TOKENS,), float(item != 1)),
        self_active=item != 2,
        uncond_self_active=item == 0,
        blend_tokens=uniform(2, TOKENS).round(),
    )


def image(item: int) -> Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(item))


ASKS: dict[str, Callable[[DiffusionClient, int], Any]] = {
    "clip.embed_tokens": lambda c, i: c.embed_prompt([1, 2, 3 + i, 27, 28, 28, 28, 28]),
    "clip.image_tokens": lambda c, i: c.image_tokens(image(i)),
    "vae.encode": lambda c, i: c.encode(image(i)),
    "vae.decode": lambda c, i: c.decode(normal(i, 4, 8, 8)),
    "unet.noise": lambda c, i: c.noise(noise_query(i)),
    "unet.value_loss": lambda c, i: c.value_loss(value_query(i), normal(i, TOKENS, WIDTH)),
    "unet.edit_noise": lambda c, i: c.edit_noise(edit_query(i)),
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
    client = DiffusionClient(recorder, networks.spec)
    for item in range(3):
        for op in ("unet.noise", "unet.edit_noise"):
            ASKS[op](client, item)
        client.value_loss(value_query(item, weight=0.0), normal(item, TOKENS, WIDTH))
    rows.clear()
    forwards = sum(answer.work["unet_forward"] for answer in host.run_all(recorder.calls))
    assert forwards == sum(rows) == 3 * (1 + 4 + 1)


def plain_value_loss(spec_map_pixels: int, query: ValueQuery, value: Tensor) -> tuple[Tensor, ...]:
    """The training step on a stock UNet: hooks replace the value input and rebuild the maps."""
    maps: list[Tensor] = []
    unet = tiny_unet().eval()
    unet.set_attn_processor(AttnProcessor2_0())
    queries: dict[str, Tensor] = {}
    values: list[Tensor] = []

    def split(states: Tensor) -> Tensor:
        return states.unflatten(-1, (2, -1)).transpose(1, 2)

    def keep_map(name: str, output: Tensor) -> None:
        query, key = queries[name], split(output)
        if query.shape[2] == spec_map_pixels and not name.startswith("mid"):
            maps.append((query @ key.mT / query.shape[-1] ** 0.5).softmax(-1))

    for name, module in unet.named_modules():
        layer = name.rpartition(".")[0]
        if name.endswith("attn2.to_v"):
            module.register_forward_pre_hook(lambda _, args: (values[0],) if values else args)
        if name.endswith("attn2.to_q"):
            module.register_forward_hook(
                lambda _, __, output, layer=layer: queries.update({layer: split(output)})
            )
        if name.endswith("attn2.to_k"):
            module.register_forward_hook(lambda _, __, output, layer=layer: keep_map(layer, output))
    embeds = query.embeds[None]
    with torch.no_grad():
        unet(query.map_latents[None], torch.tensor([query.map_timestep]), embeds)
    targets = list(maps)
    maps.clear()
    values.append(value[None])
    cond = unet(query.latents[None], torch.tensor([query.timestep]), embeds).sample[0]
    guided = guide(query.noise_uncond, cond, query.guidance_scale)
    moved = ddim_step(query.latents, guided, query.alpha, query.alpha_prev)
    near = torch.nn.functional.mse_loss(moved, query.target_latents)
    far = torch.stack(
        [torch.nn.functional.mse_loss(m, t) for m, t in zip(maps, targets, strict=True)]
    ).sum()
    return near + query.attention_weight * far, near, far


@pytest.mark.parametrize("item", range(3))
def test_value_loss_is_plain_autograd_through_the_stock_network(
    item: int, client: DiffusionClient, networks: Networks
) -> None:
    """A large weight, so that the attention part carries half of the gradient or so."""
    query = value_query(item, weight=100.0)
    leaf = normal(item + 40, TOKENS, WIDTH).requires_grad_()
    again = leaf.detach().clone().requires_grad_()
    found = client.value_loss(query, leaf)
    expected, near, far = plain_value_loss(networks.spec.map_size**2, query, again)
    torch.testing.assert_close(found.loss, expected, rtol=1e-5, atol=0)
    assert found.latent_loss == pytest.approx(near.item(), rel=1e-5)
    assert found.attention_loss == pytest.approx(far.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(3 * found.loss, leaf)  # a factor: backward must use it
    (plain,) = torch.autograd.grad(3 * expected, again)
    assert (gradient - plain).abs().max() <= 1e-4 * plain.abs().max()


def test_value_loss_without_attention_never_looks_at_maps(
    client: DiffusionClient, networks: Networks
) -> None:
    result = client.value_loss(value_query(0, weight=0.0), normal(0, TOKENS, WIDTH))
    assert result.attention_loss == 0
    assert result.loss.item() == pytest.approx(result.latent_loss)
    assert (networks.maps.hits, networks.maps.misses) == (0, 0)


def test_no_weight_ever_gets_a_gradient(client: DiffusionClient, networks: Networks) -> None:
    leaf = normal(0, TOKENS, WIDTH).requires_grad_()
    client.value_loss(value_query(0), leaf).loss.backward()
    assert leaf.grad is not None
    assert all(p.grad is None for p in networks.unet.parameters())


def test_targets_are_computed_once_whoever_asks(networks: Networks, host: OperationHost) -> None:
    """A batch in which one item's maps are known computes the others', in one pass."""
    recorder = Recorder(host)
    client = DiffusionClient(recorder, networks.spec)
    query = value_query(1)
    client.noise(NoiseQuery(query.map_latents, query.map_timestep, query.embeds), keep_maps=True)
    recorder.calls.clear()
    batches: list[int] = []
    networks.unet.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    for item in range(3):
        ASKS["unet.value_loss"](client, item)
    assert batches == [1, 1, 1, 1, 1]  # items 0 and 2 first compute their targets
    fresh = OperationHost(tiny_networks())
    known = host.run_batch(recorder.calls)
    assert batches[5:] == [3]
    recomputed = fresh.run_batch(recorder.calls)
    for one, other in zip(known, recomputed, strict=True):
        assert isinstance(one, Answer)
        assert isinstance(other, Answer)
        np.testing.assert_allclose(one.arrays["loss"], other.arrays["loss"], rtol=1e-5)


def test_kept_maps_do_not_hold_on_to_their_batch(host: OperationHost, networks: Networks) -> None:
    recorder = Recorder(host)
    client = DiffusionClient(recorder, networks.spec)
    queries = [noise_query(item) for item in range(3)]
    client.noises([NoiseQuery(q.latents, q.timestep, q.embeds) for q in queries], keep_maps=True)
    host.run_batch(recorder.calls)
    per_item = 3 * 2 * 16 * TOKENS * 4  # layers, heads, pixels
    assert networks.maps.bytes == 3 * per_item
    kept = [m for maps in networks.maps._maps.values() for m in maps]
    assert sum(m.untyped_storage().nbytes() for m in kept) == 3 * per_item


def test_maps_under_a_value_input_of_their_own_are_not_kept(client: DiffusionClient) -> None:
    with pytest.raises(InvalidRequestError, match="keep_maps"):
        client.noise(noise_query(0), keep_maps=True)


def test_an_edit_without_editing_is_four_predictions(client: DiffusionClient) -> None:
    query = edit_query(0)
    plain = EditQuery(
        **(
            vars(query)
            | {
                "cross_alpha": torch.zeros(TOKENS),
                "self_active": False,
                "uncond_self_active": False,
            }
        )
    )
    found = client.edit_noise(plain)
    uncond = client.noises(
        [NoiseQuery(z, query.timestep, query.uncond_embeds) for z in query.latents]
    )
    cond = client.noises(
        [
            NoiseQuery(z, query.timestep, c, v)
            for z, c, v in zip(query.latents, query.embeds, query.value_embeds, strict=True)
        ]
    )
    torch.testing.assert_close(found.uncond, torch.stack(uncond), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.cond, torch.stack(cond), rtol=1e-5, atol=1e-5)


def test_self_windows_of_the_two_branches_are_apart(client: DiffusionClient) -> None:
    closed = {
        "cross_alpha": torch.zeros(TOKENS),
        "self_active": False,
        "uncond_self_active": False,
    }
    plain, prompted, unprompted = (
        client.edit_noise(EditQuery(**(vars(edit_query(0)) | closed | opened)))
        for opened in ({}, {"self_active": True}, {"uncond_self_active": True})
    )
    torch.testing.assert_close(prompted.uncond, plain.uncond)
    torch.testing.assert_close(unprompted.cond, plain.cond)
    assert (prompted.cond[1] - plain.cond[1]).abs().max() > 0.01
    assert (unprompted.uncond[1] - plain.uncond[1]).abs().max() > 0.01


def test_scores_of_all_tokens_are_one_where_nothing_is_edited(client: DiffusionClient) -> None:
    """Attention of a pixel sums to 1, so the mean over layers and heads does."""
    query = edit_query(1)  # its cross window is closed
    found = client.edit_noise(EditQuery(**(vars(query) | {"blend_tokens": torch.ones(2, TOKENS)})))
    torch.testing.assert_close(found.scores, torch.ones(2, 4, 4))


def test_the_source_row_never_depends_on_the_target(client: DiffusionClient) -> None:
    query = edit_query(0)
    embeds, latents = query.embeds.clone(), query.latents.clone()
    embeds[1] += 1
    latents[1] -= 1
    first = client.edit_noise(query)
    second = client.edit_noise(EditQuery(**(vars(query) | {"embeds": embeds, "latents": latents})))
    for name in ("uncond", "cond", "scores"):
        torch.testing.assert_close(getattr(first, name)[0], getattr(second, name)[0])
    assert (first.cond[1] - second.cond[1]).abs().max() > 0.01


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
