"""Operations of a latent-diffusion model: pure, batched, named (`farm.diffusion` asks them).

Each takes stacked tensors and answers with stacked tensors. No network here mixes samples of a
batch, and nothing below does: summed losses of independent samples have independent gradients.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.adapters.attention import PAIR_ROWS, AttentionControl, pair_edits
from farm.backbones.map_cache import Maps, maps_digest
from farm.backbones.networks import Networks
from farm.calls import Batch, Operation, Static, Tensors
from farm.errors import InvalidRequestError
from farm.losses.attention import attention_loss
from farm.losses.latents import latent_loss

Latents = Float[Tensor, "batch channels height width"]
Embeds = Float[Tensor, "batch tokens embed"]

_ROWS = len(PAIR_ROWS)


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
    latents, timestep, embeds = tensors["latents"], tensors["timestep"], tensors["embeds"]
    values = tensors.get("value_embeds")
    with torch.no_grad():
        if not static.get("keep_maps", False):
            control = None if values is None else AttentionControl(value_embeds=values)
            predicted = networks.unet(latents, timestep, embeds, control)
        elif values is None:
            predicted, _ = _record_maps(networks, latents, timestep, embeds)
        else:
            raise InvalidRequestError(
                "keep_maps came with value_embeds: maps are kept for the prompt's own values alone"
            )
    return Batch({"noise": predicted}, {"unet_forward": 1})


def value_loss(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Loss of a training step of the value input and its gradient (StyleDiffusion spec §6).

    `mean((z' - target)²) + attention_weight · Σ mean((A - A_target)²)` with z' the guided DDIM
    move; static `attention` says whether the second term is there at all.
    """
    uses_maps = bool(static.get("attention", True))
    targets = _target_maps(networks, tensors) if uses_maps else ()
    with torch.enable_grad():  # a near caller is inside an autograd function, where grad is off
        values = tensors["value_embeds"].detach().requires_grad_()
        control = AttentionControl(
            value_embeds=values,
            record_pixels=networks.spec.map_size**2 if uses_maps else None,
        )
        cond = networks.unet(tensors["latents"], tensors["timestep"], tensors["embeds"], control)
        near = latent_loss(_guided_move(tensors, cond), tensors["target_latents"])
        far = attention_loss(control.maps, targets) if uses_maps else torch.zeros_like(near)
        loss = near + tensors["attention_weight"] * far
        (gradient,) = torch.autograd.grad(loss.sum(), values)
    results = {
        "loss": loss,
        "latent_loss": near,
        "attention_loss": far,
        "grad_value_embeds": gradient,
    }
    return Batch(
        {name: tensor.detach() for name, tensor in results.items()},
        {"unet_forward": 1, "unet_backward": 1},
    )


def edit_noise(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Noise of (source, target) pairs under attention control (StyleDiffusion spec §7).

    One forward pass with four rows a pair: source and target without the prompt, then with it.
    """
    del static
    latents, embeds = tensors["latents"], tensors["embeds"]
    uncond = tensors["uncond_embeds"][:, None].expand_as(embeds)
    edits = pair_edits(
        mapper=tensors["mapper"],
        refine_alpha=tensors["refine_alpha"],
        equalizer=tensors["equalizer"],
        cross_alpha=tensors["cross_alpha"],
        self_active=torch.stack([tensors["uncond_self_active"], tensors["self_active"]], dim=1),
        self_pixels=networks.spec.self_replace_size**2,
    )
    control = AttentionControl(
        value_embeds=torch.cat([uncond, tensors["value_embeds"]], dim=1).flatten(0, 1),
        record_pixels=networks.spec.map_size**2,
        edits=edits,
    )
    with torch.no_grad():
        predicted = networks.unet(
            torch.cat([latents, latents], dim=1).flatten(0, 1),
            tensors["timestep"].repeat_interleave(_ROWS),
            torch.cat([uncond, embeds], dim=1).flatten(0, 1),
            control,
        ).unflatten(0, (-1, 2, 2))
        scores = blend_scores(control.maps, tensors["blend_tokens"], networks.spec.map_size)
    return Batch(
        {"noise_uncond": predicted[:, 0], "noise_cond": predicted[:, 1], "scores": scores},
        {"unet_forward": _ROWS},
    )


OPERATIONS: Mapping[str, Operation] = {
    "clip.embed_tokens": embed_tokens,
    "clip.image_tokens": image_tokens,
    "vae.encode": encode,
    "vae.decode": decode,
    "unet.noise": noise,
    "unet.value_loss": value_loss,
    "unet.edit_noise": edit_noise,
}


def blend_scores(
    maps: list[Tensor], blend_tokens: Float[Tensor, "pairs 2 tokens"], size: int
) -> Float[Tensor, "pairs 2 size size"]:
    """Mean over layers and heads of the attention that each row's blend tokens get."""
    layers = [
        torch.einsum("prhqt,prt->prq", layer, blend_tokens) / layer.shape[2] for layer in maps
    ]
    return torch.stack(layers).mean(dim=0).unflatten(-1, (size, size))


def _guided_move(tensors: Tensors, cond: Latents) -> Latents:
    """The DDIM move under guidance; every sample has its own scale and noise levels."""
    scale, alpha, alpha_to = (
        tensors[name].view(-1, 1, 1, 1) for name in ("guidance_scale", "alpha", "alpha_prev")
    )
    uncond = tensors["noise_uncond"]
    guided = uncond + scale * (cond - uncond)
    clean = (tensors["latents"] - (1 - alpha).sqrt() * guided) / alpha.sqrt()
    return alpha_to.sqrt() * clean + (1 - alpha_to).sqrt() * guided


def _target_maps(networks: Networks, tensors: Tensors) -> Maps:
    """Stacked target maps of a batch: from the cache, or computed in one pass where it lacks."""
    names = ("map_latents", "map_timestep", "embeds")
    latents, timestep, embeds = (tensors[name] for name in names)
    found = [networks.maps.get(d) for d in _digests(latents, timestep, embeds)]
    lacking = [row for row, maps in enumerate(found) if maps is None]
    if lacking:
        with torch.no_grad():
            _, again = _record_maps(networks, latents[lacking], timestep[lacking], embeds[lacking])
        for row, maps in zip(lacking, again, strict=True):
            found[row] = maps
    layers = zip(*(maps for maps in found if maps is not None), strict=True)
    return tuple(torch.stack(layer) for layer in layers)


def _record_maps(
    networks: Networks, latents: Latents, timestep: Int[Tensor, " batch"], embeds: Embeds
) -> tuple[Latents, list[Maps]]:
    """Noise, and the maps of each sample, which the cache then has."""
    control = AttentionControl(record_pixels=networks.spec.map_size**2)
    predicted = networks.unet(latents, timestep, embeds, control)
    kept: list[Maps] = []
    for row, digest in enumerate(_digests(latents, timestep, embeds)):
        # copies: a view would keep the maps of the whole batch alive
        kept.append(tuple(layer[row].clone() for layer in control.maps))
        networks.maps.put(digest, kept[-1])
    return predicted, kept


def _digests(latents: Latents, timestep: Int[Tensor, " batch"], embeds: Embeds) -> list[bytes]:
    rows = zip(latents.cpu(), timestep.tolist(), embeds.cpu(), strict=True)
    return [maps_digest(*row) for row in rows]
