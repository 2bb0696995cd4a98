import pytest
import torch

from farm.backbones.inpainting import Inpainter
from farm.errors import ModelSetError
from farm.samplers.ddim import NoiseSchedule
from tests.tiny import TOKENS, WIDTH, tiny_unet
from tests.tiny_regions import tiny_inpainting_unet, tiny_region_spec


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def inputs():
    return {
        "latents": normal(2, 4, 8, 8),
        "timesteps": torch.tensor([901, 3]),
        "embeds": normal(2, TOKENS, WIDTH),
        "mask": (normal(2, 1, 8, 8, seed=1) > 0).float(),
        "left": normal(2, 4, 8, 8, seed=2),
    }


def test_the_order_of_channels_is_stable_diffusion_s(inputs):
    unet = tiny_inpainting_unet()
    with torch.no_grad():
        found = Inpainter(unet, tiny_region_spec())(**inputs)
        stacked = torch.cat([inputs["latents"], inputs["mask"], inputs["left"]], dim=1)
        expected = unet(stacked, inputs["timesteps"], inputs["embeds"]).sample
    torch.testing.assert_close(found, expected)


def test_a_velocity_becomes_noise(inputs):
    """x_t = √ᾱ x₀ + √(1-ᾱ) ε solved with v = √ᾱ ε - √(1-ᾱ) x₀, per sample."""
    unet = tiny_inpainting_unet()
    alphas = NoiseSchedule.from_spec(tiny_region_spec()).alphas_cumprod
    alpha = alphas[inputs["timesteps"]].view(-1, 1, 1, 1).double()
    with torch.no_grad():
        velocity = Inpainter(unet, tiny_region_spec("epsilon"))(**inputs).double()
        noise = Inpainter(unet, tiny_region_spec("v_prediction"))(**inputs).double()
    clean = (inputs["latents"] - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    # dividing by √ᾱ, down to .07 here, amplifies single precision
    torch.testing.assert_close(
        alpha.sqrt() * noise - (1 - alpha).sqrt() * clean, velocity, atol=1e-4, rtol=1e-4
    )


def test_it_is_frozen():
    inpainter = Inpainter(tiny_inpainting_unet().train(), tiny_region_spec())
    assert not inpainter.unet.training
    assert not any(p.requires_grad for p in inpainter.parameters())


def test_a_unet_without_holes_is_refused():
    with pytest.raises(ModelSetError, match="takes 4 channels, expected 9"):
        Inpainter(tiny_unet(), tiny_region_spec())
