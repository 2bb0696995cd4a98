"""Stable Diffusion's inpainting UNet, frozen: noise of latents around a hole."""

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from farm.errors import ModelSetError
from farm.model_spec import ModelSpec
from farm.samplers.ddim import NoiseSchedule, noise_of_velocity


class Inpainter(nn.Module):
    """A UNet of nine channels as a predictor of noise, whatever it was trained to predict.

    Its input is [noisy latents | mask, 1 = hole | latents of the picture with a grey hole].

    Args:
        unet: taken over: frozen and in eval mode.
        spec: its noise levels, and what it predicts.

    Raises:
        ModelSetError: the UNet has other channels.
    """

    alphas: Tensor

    def __init__(self, unet: UNet2DConditionModel, spec: ModelSpec) -> None:
        super().__init__()
        expected = 2 * spec.latent_channels + 1
        if unet.config["in_channels"] != expected:
            raise ModelSetError(
                f"the inpainting UNet takes {unet.config['in_channels']} channels, expected "
                f"{expected} (latents, mask, latents of what is left): it is not an inpainting UNet"
            )
        assert spec.regions is not None, "callers look for the networks that the spec names"
        self.unet = unet.requires_grad_(False).eval()
        self._is_velocity = spec.regions.inpainting_prediction == "v_prediction"
        alphas = NoiseSchedule.from_spec(spec).alphas_cumprod
        self.register_buffer("alphas", alphas, persistent=False)

    def forward(
        self,
        latents: Float[Tensor, "batch channels height width"],
        timesteps: Int[Tensor, " batch"],
        embeds: Float[Tensor, "batch tokens embed"],
        mask: Float[Tensor, "batch 1 height width"],
        left: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Predicted noise; every sample at its own timestep."""
        dtype = self.unet.dtype
        inputs = torch.cat([latents, mask, left], dim=1).to(dtype)
        (output,) = self.unet(inputs, timesteps, embeds.to(dtype), return_dict=False)
        output = output.to(latents.dtype)
        if not self._is_velocity:
            return output
        return noise_of_velocity(output, latents, self.alphas[timesteps])
