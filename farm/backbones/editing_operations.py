"""Noise of an edit's targets under attention control (StyleDiffusion spec §7)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from farm.adapters.attention import AttentionControl, target_edits
from farm.backbones.networks import Networks
from farm.backbones.recording import PassInputs, source_states
from farm.calls import Batch, Static, Tensors

_ROWS = 2
"""Of a target: without the prompt, with it."""


def edit_noise(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Noise of targets without and with their prompt, looking where their sources look.

    Two rows a target. What is taken of a source's attention comes from the cache; where it lacks,
    the source is computed first, once for all targets that share it. With `score_tokens` the
    attention to sets of tokens is answered too; maps are materialised only then.
    """
    timestep, values = tensors["timestep"], tensors["value_embeds"]
    uncond, scored = tensors["uncond_embeds"], tensors.get("score_tokens")
    alone = bool(static.get("alone", False))
    origin = tensors["source_latents"]
    self_active = torch.stack([tensors["uncond_self_active"], tensors["self_active"]], dim=1)
    takes_cross = (tensors["cross_alpha"] > 0).any(dim=1)
    free, cost = source_states(
        networks,
        PassInputs(origin, timestep, uncond, alone=alone),
        self_active[:, 0].tolist(),
        prompted=False,
    )
    prompted, more = source_states(
        networks,
        PassInputs(
            origin, timestep, tensors["source_embeds"], tensors["source_value_embeds"], alone=alone
        ),
        (takes_cross | self_active[:, 1]).tolist(),
        prompted=True,
    )
    control = AttentionControl(
        value_embeds=torch.stack([uncond, values], dim=1).flatten(0, 1),
        record_pixels=None if scored is None else networks.spec.map_size**2,
        edits=target_edits(
            mapper=tensors["mapper"],
            refine_alpha=tensors["refine_alpha"],
            equalizer=tensors["equalizer"],
            cross_alpha=tensors["cross_alpha"],
            self_active=self_active,
            self_pixels=networks.spec.self_replace_size**2,
            free=free,
            prompted=prompted,
        ),
    )
    with torch.no_grad():
        predicted = networks.unet(
            tensors["latents"].repeat_interleave(_ROWS, dim=0),
            timestep.repeat_interleave(_ROWS),
            torch.stack([uncond, tensors["embeds"]], dim=1).flatten(0, 1),
            control,
        ).unflatten(0, (-1, _ROWS))
    results = {"noise_uncond": predicted[:, 0], "noise_cond": predicted[:, 1]}
    if scored is not None:
        results["scores"] = word_scores(control.maps, scored, networks.spec.map_size)
    extra = [{"unet_forward": one + other} for one, other in zip(cost, more, strict=True)]
    return Batch(results, {"unet_forward": _ROWS}, extra)


def word_scores(
    maps: Sequence[Tensor], tokens: Float[Tensor, "items sets tokens"], size: int
) -> Float[Tensor, "items sets size size"]:
    """Mean over layers and heads of the attention that each set of tokens gets."""
    layers = [torch.einsum("ihqt,ist->isq", layer, tokens) / layer.shape[1] for layer in maps]
    return torch.stack(layers).mean(dim=0).unflatten(-1, (size, size))
