"""Operations of a latent-diffusion model: pure, batched, named (`farm.diffusion` asks them).

Each takes stacked tensors and answers with stacked tensors. No network here mixes samples of a
batch, and nothing below does: summed losses of independent samples have independent gradients.
"""

from collections.abc import Mapping

import torch

from farm.adapters.attention import AttentionControl
from farm.backbones.editing_operations import edit_noise
from farm.backbones.networks import Networks
from farm.backbones.recording import PassInputs, record_maps, record_source, token_maps
from farm.backbones.training_operations import context_loss, value_loss
from farm.calls import Batch, Operation, Static, Tensors
from farm.errors import InvalidRequestError


def embed_tokens(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Text embeddings of padded token `ids`."""
    del static
    with torch.no_grad():
        return Batch({"embeds": networks.text(tensors["ids"])}, {"text_forward": 1})


def image_tokens(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """All tokens of the image encoder for `image` in [0, 1]."""
    del static
    with torch.no_grad():
        return Batch({"tokens": networks.image(tensors["image"])}, {"image_forward": 1})


def encode(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Scaled latents of `image` in [0, 1]."""
    del static
    with torch.no_grad():
        return Batch({"latents": networks.vae.encode(tensors["image"])}, {"vae_encode": 1})


def decode(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Pictures in [0, 1] of scaled `latents`."""
    del static
    with torch.no_grad():
        return Batch({"image": networks.vae.decode(tensors["latents"])}, {"vae_decode": 1})


def noise(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Predicted noise; `keep_maps` puts the cross-attention maps into the cache.

    Raises:
        InvalidRequestError: maps are to be kept under a separate value input, which their name in
            the cache says nothing of.
    """
    inputs = _inputs(tensors, static)
    values = inputs.value_embeds
    with torch.no_grad():
        if not static.get("keep_maps", False):
            control = None if values is None else AttentionControl(value_embeds=values)
            predicted = networks.unet(inputs.latents, inputs.timestep, inputs.embeds, control)
        elif values is None:
            predicted, _ = record_maps(networks, inputs)
        else:
            raise InvalidRequestError(
                "keep_maps came with value_embeds: maps are kept for the prompt's own values alone"
            )
    return Batch({"noise": predicted}, {"unet_forward": 1})


def source_noise(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Predicted noise of prompted sources, whose queries and keys the cache then has.

    `maps` is the attention that each token gets: the mean of the recorded maps.
    """
    with torch.no_grad():
        predicted, _, maps = record_source(networks, _inputs(tensors, static), prompted=True)
    return Batch({"noise": predicted, "maps": token_maps(maps)}, {"unet_forward": 1})


def _inputs(tensors: Tensors, static: Static) -> PassInputs:
    return PassInputs(
        tensors["latents"],
        tensors["timestep"],
        tensors["embeds"],
        tensors.get("value_embeds"),
        alone=bool(static.get("alone", False)),
    )


OPERATIONS: Mapping[str, Operation] = {
    "clip.embed_tokens": embed_tokens,
    "clip.image_tokens": image_tokens,
    "vae.encode": encode,
    "vae.decode": decode,
    "unet.noise": noise,
    "unet.source_noise": source_noise,
    "unet.value_loss": value_loss,
    "unet.context_loss": context_loss,
    "unet.edit_noise": edit_noise,
}
"""What each takes is in `farm.backbones.inputs`; an operation has a row there too."""
