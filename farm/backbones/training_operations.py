"""Losses of training steps and the gradient of their one trained input (StyleDiffusion spec §6)."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from farm.adapters.attention import AttentionControl
from farm.backbones.networks import Networks
from farm.backbones.recording import PassInputs, recorded_maps
from farm.backbones.stable_diffusion import NoisePredictor
from farm.calls import Batch, Static, Tensors
from farm.losses.attention import attention_loss
from farm.losses.latents import latent_loss

_FP16_SCALE = 2.0**14

Latents = Float[Tensor, "batch channels height width"]

_TARGET = "target_map_"
_OF_MAPS = ("map_latents", "map_timestep")
"""What says which maps are the targets, and has done so by then."""


def value_loss(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Loss of a training step of the value input and its gradient.

    `mean((z' - target)²) + attention_weight · Σ mean((A - A_target)²)` with z' the guided DDIM
    move; static `attention` says whether the second term is there at all.
    """
    uses_maps = bool(static.get("attention", True))
    embeds, lacking = tensors["embeds"], list[int]()
    targets: tuple[Tensor, ...] = ()
    if uses_maps:
        maps = PassInputs(
            tensors["map_latents"],
            tensors["map_timestep"],
            embeds,
            alone=bool(static.get("alone", False)),
        )
        targets, lacking = recorded_maps(networks, maps)
    inputs = {name: tensor for name, tensor in tensors.items() if name not in _OF_MAPS}
    inputs |= {f"{_TARGET}{number:02}": target for number, target in enumerate(targets)}
    pixels = networks.spec.map_size**2 if uses_maps else None
    results = networks.steps.run(
        f"value_step {pixels}", partial(value_step, networks.unet, pixels), inputs
    )
    return Batch(
        results,
        {"unet_forward": 1, "unet_backward": 1},
        [{"unet_forward": passes} for passes in lacking],
    )


def value_step(unet: NoisePredictor, pixels: int | None, tensors: Tensors) -> dict[str, Tensor]:
    """The step of `value_loss`, which knows its targets; nothing here waits for the device.

    Args:
        unet: predicts.
        pixels: of the maps that are compared; None: none are.
        tensors: as `value_loss` takes them, with the maps' targets by layer, `target_map_00` on.
    """
    targets = [t for name, t in sorted(tensors.items()) if name.startswith(_TARGET)]
    with torch.enable_grad():  # a near caller is inside an autograd function, where grad is off
        values = tensors["value_embeds"].detach().requires_grad_()
        control = AttentionControl(value_embeds=values, record_pixels=pixels)
        cond = unet(tensors["latents"], tensors["timestep"], tensors["embeds"], control)
        moved = _move(tensors, tensors["noise_uncond"], cond, tensors["guidance_scale"])
        near = latent_loss(moved, tensors["target_latents"])
        far = attention_loss(control.maps, targets) if targets else torch.zeros_like(near)
        loss = near + tensors["attention_weight"] * far
        gradient = _gradient(unet, loss, values)
    results = {
        "loss": loss,
        "latent_loss": near,
        "attention_loss": far,
        "grad_value_embeds": gradient,
    }
    return {name: tensor.detach() for name, tensor in results.items()}


def context_loss(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Loss of a training step of one branch's embeddings, keys and values alike, and its gradient.

    The guided noise is `(1 - weight) · other_noise + weight · e(embeds)`: null-text inversion
    trains the branch without the prompt (weight 1 - guidance), text inversion the prompted one
    (weight = guidance). The loss is `mean((z' - target)²)`.
    """
    del static
    results = networks.steps.run("context_step", partial(context_step, networks.unet), tensors)
    return Batch(results, {"unet_forward": 1, "unet_backward": 1})


def context_step(unet: NoisePredictor, tensors: Tensors) -> dict[str, Tensor]:
    """The step of `context_loss`."""
    with torch.enable_grad():  # see value_step
        embeds = tensors["embeds"].detach().requires_grad_()
        own = unet(tensors["latents"], tensors["timestep"], embeds)
        moved = _move(tensors, tensors["other_noise"], own, tensors["weight"])
        loss = latent_loss(moved, tensors["target_latents"])
        gradient = _gradient(unet, loss, embeds)
    return {"loss": loss.detach(), "grad_embeds": gradient.detach()}


def _gradient(unet: NoisePredictor, loss: Float[Tensor, " batch"], inputs: Tensor) -> Tensor:
    """Of each sample's loss, which in the UNet's fp16 would be below the least number there is.

    Too large a scale would be seen, as numbers that are not finite.
    """
    scale = _FP16_SCALE if unet.unet.dtype == torch.float16 else 1.0
    (gradient,) = torch.autograd.grad((loss * scale).sum(), inputs)
    return gradient / scale


def _move(
    tensors: Tensors, other: Latents, own: Latents, scale: Float[Tensor, " batch"]
) -> Latents:
    """The DDIM move under guidance; every sample has its own scale and noise levels."""
    weight, alpha, alpha_to = (
        values.view(-1, 1, 1, 1) for values in (scale, tensors["alpha"], tensors["alpha_prev"])
    )
    guided = other + weight * (own - other)
    clean = (tensors["latents"] - (1 - alpha).sqrt() * guided) / alpha.sqrt()
    return alpha_to.sqrt() * clean + (1 - alpha_to).sqrt() * guided
