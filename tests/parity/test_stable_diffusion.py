"""Golden vectors of the frozen side: inversion maps, one training step, its loss and gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from farm.adapters.attention import AttentionControl
from farm.backbones.networks import Networks
from farm.diffusion import DiffusionClient, NoiseQuery, ValueQuery
from farm.samplers.ddim import NoiseSchedule
from tests.parity.conftest import load_float
from tests.parity.golden_edits import modulation

MAPS = 1e-4
"""Of the largest: the vectors come from another version of the libraries, in fp32."""
LOSS = 1e-5
GRADIENT = 1e-4


@pytest.fixture(scope="module")
def mapping(golden: Path) -> dict[str, Tensor]:
    return load_float(golden / "mapping.safetensors")


@pytest.fixture(scope="module")
def schedule(golden_client: DiffusionClient) -> NoiseSchedule:
    return NoiseSchedule.from_spec(golden_client.spec)


def assert_near(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Largest difference as a share of the largest expected value."""
    worst = (actual - expected).abs().max() / expected.abs().max()
    assert worst <= relative, f"largest difference {worst:.2e} of the maximum"


def inversion_maps(networks: Networks, ddim: dict[str, Tensor], step: int) -> list[Tensor]:
    """Maps of inversion step `step`, which sees the step's latents at the next timestep."""
    timestep = ddim["timesteps"].flip(0)[step : step + 1]
    control = AttentionControl(record_pixels=networks.spec.map_size**2)
    with torch.no_grad():
        networks.unet(ddim["latents"][step : step + 1], timestep, ddim["ctx_source"], control)
    return control.maps


def test_inversion_maps(
    golden_networks: Networks, golden_ddim: dict[str, Tensor], golden_meta: dict[str, Any]
) -> None:
    for step in golden_meta["attn_keep"]:
        names = [n for n in golden_ddim if n.startswith(f"attn_inv_k{step}_layer")]
        found = inversion_maps(golden_networks, golden_ddim, step)
        assert len(found) == len(names) > 0
        for layer, maps in enumerate(found):
            assert_near(maps[0], golden_ddim[f"attn_inv_k{step}_layer{layer}"], MAPS)


def test_inversion_map_statistics_of_every_step(
    golden_networks: Networks, golden_ddim: dict[str, Tensor]
) -> None:
    expected = golden_ddim["attn_inv_stats"]
    for row in range(len(expected)):
        maps = [m[0].double() for m in inversion_maps(golden_networks, golden_ddim, row + 1)]
        found = [torch.stack([m.square().sum(), m[..., 1].mean(), m.max()]) for m in maps]
        torch.testing.assert_close(torch.stack(found), expected[row], rtol=MAPS, atol=0)


def test_image_tokens_of_the_whole_picture(
    golden: Path, golden_client: DiffusionClient, mapping: dict[str, Tensor]
) -> None:
    image = pil_to_tensor(Image.open(golden / "image.png")).float() / 255
    assert_near(golden_client.image_tokens(image), mapping["features"][0], 1e-5)


def test_encoder_input_is_resized_without_antialiasing(
    golden: Path, golden_networks: Networks, mapping: dict[str, Tensor]
) -> None:
    image = pil_to_tensor(Image.open(golden / "image.png")).float() / 255
    pixels = golden_networks.image.pixels(image[None])[..., ::7, ::7]
    torch.testing.assert_close(pixels, mapping["pixels_sub"], rtol=0, atol=1e-5)


def test_noise_at_the_first_timestep(
    golden_client: DiffusionClient, golden_ddim: dict[str, Tensor], mapping: dict[str, Tensor]
) -> None:
    latents, timestep = golden_ddim["latents"][-1], int(golden_ddim["timesteps"][0])
    uncond, cond = golden_client.noises(
        [
            NoiseQuery(latents, timestep, golden_ddim["ctx_uncond"][0]),
            NoiseQuery(
                latents, timestep, golden_ddim["ctx_source"][0], mapping["m0_value_input"][0]
            ),
        ]
    )
    assert_near(uncond, mapping["step0_eps_uncond"][0], 1e-5)
    assert_near(cond, mapping["step0_eps_cond"][0], 1e-5)


def training_query(
    client: DiffusionClient,
    ddim: dict[str, Tensor],
    index: int,
    latents: Tensor,
    *,
    guidance: float,
    attention_weight: float = 1.0,
) -> ValueQuery:
    """The training step of timestep `index`, whose targets are shifted by one (spec §0.4)."""
    inversion, timesteps = ddim["latents"], ddim["timesteps"].tolist()
    steps = len(timesteps)
    move = NoiseSchedule.from_spec(client.spec).denoising(steps)[index]
    map_step = min(steps - index, steps - 1)
    return ValueQuery(
        latents=latents,
        timestep=move.timestep,
        embeds=ddim["ctx_source"][0],
        noise_uncond=client.noise(NoiseQuery(latents, move.timestep, ddim["ctx_uncond"][0])),
        guidance_scale=guidance,
        alpha=move.alpha,
        alpha_prev=move.alpha_to,
        target_latents=inversion[steps - 1 - index],
        map_latents=inversion[map_step],
        map_timestep=timesteps[steps - 1 - map_step],
        attention_weight=attention_weight,
    )


def test_first_training_step(
    golden_client: DiffusionClient,
    golden_ddim: dict[str, Tensor],
    golden_meta: dict[str, Any],
    mapping: dict[str, Tensor],
) -> None:
    """Its two losses and the gradient of each, taken apart by the attention weight."""
    gradients: list[Tensor] = []
    for weight in (0.0, 1.0):
        query = training_query(
            golden_client,
            golden_ddim,
            0,
            golden_ddim["latents"][-1],
            guidance=golden_meta["guidance"],
            attention_weight=weight,
        )
        value = mapping["m0_value_input"][0].clone().requires_grad_()
        loss = golden_client.value_loss(query, value)
        (gradient,) = torch.autograd.grad(loss.loss, value)
        gradients.append(gradient)
        expected = mapping["step0_loss"] * torch.tensor([1.0, weight])
        assert loss.latent_loss == pytest.approx(expected[0].item(), rel=LOSS)
        assert loss.attention_loss == pytest.approx(expected[1].item(), rel=LOSS)
        assert loss.loss.item() == pytest.approx(expected.sum().item(), rel=LOSS)
    assert_near(gradients[0], mapping["step0_grad_value_rec"][0], GRADIENT)
    assert_near(gradients[1] - gradients[0], mapping["step0_grad_value_attn"][0], GRADIENT)


def test_losses_and_gradients_at_every_timestep(
    golden: Path,
    golden_client: DiffusionClient,
    golden_ddim: dict[str, Tensor],
    golden_meta: dict[str, Any],
    mapping: dict[str, Tensor],
) -> None:
    weights = load_file(golden / "mapping_final_half.safetensors")
    states = [golden_ddim["latents"][-1], *mapping["latents_after_timestep"]]
    for index, expected in enumerate(mapping["probe_losses"].tolist()):
        scale, shift = modulation(weights, index, mapping["features"])
        value = (golden_ddim["ctx_source"][0] * scale + shift).requires_grad_()
        query = training_query(
            golden_client,
            golden_ddim,
            index,
            states[index],
            guidance=golden_meta["guidance"],
        )
        loss = golden_client.value_loss(query, value)
        (gradient,) = torch.autograd.grad(loss.loss, value)
        assert [loss.latent_loss, loss.attention_loss] == pytest.approx(expected, abs=LOSS)
        assert_near(gradient, mapping["probe_grad_value"][index, 0], GRADIENT)


def test_maps_recorded_by_inversion_serve_the_training_step(
    golden_client: DiffusionClient,
    golden_networks: Networks,
    golden_ddim: dict[str, Tensor],
    mapping: dict[str, Tensor],
) -> None:
    """Found in the cache or computed again, the targets are the same."""
    query = training_query(golden_client, golden_ddim, 1, golden_ddim["latents"][-2], guidance=7.5)
    value = mapping["m0_value_input"][0]
    before = golden_client.value_loss(query, value).loss
    hits = golden_networks.maps.hits
    golden_client.noise(
        NoiseQuery(query.map_latents, query.map_timestep, query.embeds), keep_maps=True
    )
    after = golden_client.value_loss(query, value).loss
    assert golden_networks.maps.hits == hits + 1
    assert torch.equal(before, after)
