import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from farm.backbones.stable_diffusion import NoisePredictor
from farm.errors import ModelSetError
from tests.tiny import TOKENS, WIDTH, tiny_autoencoder, tiny_spec, tiny_unet

TIMESTEPS = torch.tensor([1, 250, 600, 999])


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(4, 4, 8, 8, generator=generator)
    return latents, torch.randn(4, TOKENS, WIDTH, generator=generator)


def stock_output(latents: Tensor, embeds: Tensor) -> Tensor:
    unet = tiny_unet().eval()
    unet.set_attn_processor(AttnProcessor2_0())
    with torch.no_grad():
        return unet(latents, TIMESTEPS, embeds).sample


def test_a_predictor_of_noise_gives_what_the_unet_gives() -> None:
    latents, embeds = inputs()
    found = NoisePredictor(tiny_unet(), tiny_spec())(latents, TIMESTEPS, embeds)
    torch.testing.assert_close(found, stock_output(latents, embeds), rtol=1e-5, atol=1e-5)


def test_a_velocity_becomes_the_noise_that_diffusers_sees_in_it() -> None:
    """Noise and clean latents in diffusers' reading must make up the noisy latents again."""
    latents, embeds = inputs()
    found = NoisePredictor(tiny_unet(), tiny_spec("v_prediction"))(latents, TIMESTEPS, embeds)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
    )
    scheduler.set_timesteps(1000)
    velocity = stock_output(latents, embeds)
    for row, timestep in enumerate(TIMESTEPS.tolist()):
        clean = scheduler.step(velocity[row], timestep, latents[row]).pred_original_sample
        remade = scheduler.add_noise(clean, found[row], TIMESTEPS[row : row + 1])
        torch.testing.assert_close(remade, latents[row], rtol=1e-5, atol=1e-5)


def test_it_is_frozen_and_stays_in_eval_mode() -> None:
    predictor = NoisePredictor(tiny_unet().train(), tiny_spec())
    assert not any(p.requires_grad for p in predictor.parameters())
    assert not any(module.training for module in predictor.unet.modules())


def test_a_map_size_that_no_layer_has_is_an_error() -> None:
    spec = tiny_spec().model_copy(update={"map_size": 5})
    with pytest.raises(ModelSetError, match="5x5 queries"):
        NoisePredictor(tiny_unet(), spec)


def test_latents_are_the_scaled_mean_of_the_posterior() -> None:
    autoencoder = tiny_autoencoder()
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    moments = autoencoder.vae.quant_conv(autoencoder.vae.encoder(2 * image - 1))
    expected = moments[:, :4] * autoencoder.vae.config.scaling_factor
    torch.testing.assert_close(autoencoder.encode(image), expected)


def test_pictures_are_decoded_into_zero_to_one() -> None:
    autoencoder = tiny_autoencoder()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    image = autoencoder.decode(latents)
    raw = autoencoder.vae.decode(latents / autoencoder.vae.config.scaling_factor).sample
    torch.testing.assert_close(image, ((raw + 1) / 2).clip(0, 1))
    assert image.min() == 0  # the random decoder leaves the range, so the clamp is seen to work
    assert image.max() == 1
