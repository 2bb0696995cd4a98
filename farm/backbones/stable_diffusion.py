"""Stable Diffusion's UNet and autoencoder, frozen; callers see noise and pictures in [0, 1]."""

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from jaxtyping import Float, Int
from torch import Tensor, nn

from farm.adapters.attention import AttentionControl, install_attention
from farm.adapters.attention_layers import check_layers
from farm.model_spec import ModelSpec
from farm.samplers.ddim import NoiseSchedule, noise_of_velocity


class NoisePredictor(nn.Module):
    """A UNet as a predictor of noise, whatever it was trained to predict.

    Args:
        unet: taken over: frozen, in eval mode, and under attention control from here on.
        spec: says what the UNet predicts and its noise schedule.

    Raises:
        ModelSetError: the UNet's attention cannot be controlled, or has not the sizes of `spec`.
    """

    alphas: Tensor

    def __init__(self, unet: UNet2DConditionModel, spec: ModelSpec) -> None:
        super().__init__()
        layers = install_attention(unet, spec.latent_size)
        check_layers(layers, spec.map_size, spec.self_replace_size)
        self.unet = unet.requires_grad_(False).eval()
        self._is_velocity = spec.prediction_type == "v_prediction"
        alphas = NoiseSchedule.from_spec(spec).alphas_cumprod
        self.register_buffer("alphas", alphas, persistent=False)

    def forward(
        self,
        latents: Float[Tensor, "batch channels height width"],
        timesteps: Int[Tensor, " batch"],
        embeds: Float[Tensor, "batch tokens embed"],
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Predicted noise; every sample at its own timestep.

        The UNet computes in its own precision; what it is told and answers keeps the latents'.
        """
        kwargs = None if control is None else {"control": control}
        dtype = self.unet.dtype
        (output,) = self.unet(
            latents.to(dtype),
            timesteps,
            embeds.to(dtype),
            cross_attention_kwargs=kwargs,
            return_dict=False,
        )
        output = output.to(latents.dtype)
        if not self._is_velocity:
            return output
        return noise_of_velocity(output, latents, self.alphas[timesteps])


class Autoencoder(nn.Module):
    """Pictures in [0, 1] to scaled latents and back; the posterior's mean, so nothing is random."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False).eval()
        self._scale = float(vae.config["scaling_factor"])

    def encode(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels latent_height latent_width"]:
        encoded = self.vae.encode(image * 2 - 1)
        assert isinstance(encoded, AutoencoderKLOutput)
        return encoded.latent_dist.mode() * self._scale

    def decode(
        self, latents: Float[Tensor, "batch channels latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        # diffusers writes torch.FloatTensor where it means a tensor
        decoded = self.vae.decode(latents / self._scale)  # pyright: ignore[reportArgumentType]
        assert isinstance(decoded, DecoderOutput)
        return (decoded.sample / 2 + 0.5).clamp(0, 1)
