"""Losses and gradients of training steps against plain autograd through the stock network."""

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.backbones.training_operations import _move, context_step
from farm.calls import Answer
from farm.diffusion import ContextQuery, DiffusionClient, NoiseQuery, ValueQuery
from farm.samplers.ddim import ddim_step
from farm.samplers.guidance import guide
from tests.farm.backbones.queries import Recorder, context_query, normal, value_query
from tests.tiny import TOKENS, WIDTH, tiny_networks, tiny_unet


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
        client.value_loss(value_query(item), normal(item, TOKENS, WIDTH))
    assert batches == [1, 1, 1, 1, 1]  # items 0 and 2 first compute their targets
    fresh = OperationHost(tiny_networks())
    known = host.run_batch(recorder.calls)
    assert batches[5:] == [3]
    recomputed = fresh.run_batch(recorder.calls)
    for one, other in zip(known, recomputed, strict=True):
        assert isinstance(one, Answer)
        assert isinstance(other, Answer)
        np.testing.assert_allclose(one.arrays["loss"], other.arrays["loss"], rtol=1e-5)


def plain_context_loss(query: ContextQuery, embeds: Tensor) -> Tensor:
    unet = tiny_unet().eval()
    unet.set_attn_processor(AttnProcessor2_0())
    timestep = torch.tensor([query.timestep])
    own = unet(query.latents[None], timestep, embeds[None]).sample[0]
    noise = (1 - query.weight) * query.other_noise + query.weight * own
    moved = ddim_step(query.latents, noise, query.alpha, query.alpha_prev)
    return torch.nn.functional.mse_loss(moved, query.target_latents)


@pytest.mark.parametrize("item", range(3))
def test_context_loss_is_plain_autograd_through_the_stock_network(
    item: int, client: DiffusionClient
) -> None:
    query = context_query(item)
    leaf = normal(item + 40, TOKENS, WIDTH).requires_grad_()
    again = leaf.detach().clone().requires_grad_()
    found, expected = client.context_loss(query, leaf), plain_context_loss(query, again)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(3 * found, leaf)
    (plain,) = torch.autograd.grad(3 * expected, again)
    assert (gradient - plain).abs().max() <= 1e-4 * plain.abs().max()


def test_losses_asked_together_have_gradients_of_their_own(client: DiffusionClient) -> None:
    queries = [value_query(item) for item in range(3)]
    leaves = torch.stack([normal(item + 40, TOKENS, WIDTH) for item in range(3)]).requires_grad_()
    together = client.value_losses(queries, leaves)
    weighted = sum((n + 1) * value.loss for n, value in enumerate(together))
    (gradients,) = torch.autograd.grad(weighted, leaves)
    for n, query in enumerate(queries):
        leaf = leaves[n].detach().clone().requires_grad_()
        alone = client.value_loss(query, leaf)
        assert torch.equal(alone.loss, together[n].loss)
        (gradient,) = torch.autograd.grad(alone.loss, leaf)
        torch.testing.assert_close(gradients[n], (n + 1) * gradient)


def test_gradients_of_small_losses_do_not_vanish_in_half_precision(networks: Networks) -> None:
    """The gradient of a mean over a picture is below what fp16 can tell from zero."""
    half, single = tiny_networks().unet, tiny_networks().unet
    half.unet.half()
    shape = networks.spec.latent_shape
    tensors = {
        "alpha": torch.tensor([0.5]),
        "alpha_prev": torch.tensor([0.6]),
        "latents": normal(1, *shape)[None],
        "timestep": torch.tensor([500]),
        "embeds": normal(2, TOKENS, WIDTH)[None],
        "other_noise": normal(3, *shape)[None],
        "weight": torch.tensor([0.01]),
    }
    with torch.no_grad():
        own = single(tensors["latents"], tensors["timestep"], tensors["embeds"])
        reached = _move(tensors, tensors["other_noise"], own, tensors["weight"])
    tensors["target_latents"] = reached + 1e-3 * normal(4, *shape)[None]
    expected = context_step(single, tensors)["grad_embeds"].flatten()
    found = context_step(half, tensors)["grad_embeds"].flatten()
    assert expected.abs().max() < 6e-8, "else nothing is tested: fp16's least number"
    assert torch.cosine_similarity(found, expected, dim=0) > 0.95
