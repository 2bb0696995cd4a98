"""Operations of Learnable Regions: pure, batched, named (`farm.regions` asks them)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.backbones.inpainting import Inpainter
from farm.backbones.networks import Networks
from farm.backbones.region_networks import RegionNetworks
from farm.calls import Batch, Midway, Operation, Static, Stepped, Tensors
from farm.errors import InvalidRequestError
from farm.losses.views import apply_views


def features(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """DINO's [CLS] attention to cells, and their tokens, or keys with static `keys`."""
    dino = _networks(networks).dino
    image = tensors["image"]
    with torch.no_grad():
        found = dino(image, normalise=not static.get("raw", False))
    grid = (image.shape[-2] // dino.patch, image.shape[-1] // dino.patch)
    chosen = found.keys if static.get("keys", False) else found.tokens
    return Batch(
        {
            "attention": found.attention[..., 1:].unflatten(-1, grid),
            "features": chosen[:, 1:],
        },
        {"dino_forward": 1},
    )


def embed_text(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Projected text embedding of padded token `ids`."""
    del static
    with torch.no_grad():
        embeds = _networks(networks).scorer.embed_text(tensors["ids"])
    return Batch({"embed": embeds}, {"scorer_text_forward": 1})


def image(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Projected embedding of `image` times `scale`, and tokens of static `layer`."""
    scorer = _networks(networks).scorer
    with torch.no_grad():
        found = scorer(scorer.resized(_scaled(tensors)))
    tokens = found.last if static.get("layer") == "last" else found.before_last
    return Batch({"embed": found.embeds, "tokens": tokens}, {"scorer_forward": 1})


def views(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Projected embeddings of each of `views` of `image` times `scale`."""
    del static
    scorer = _networks(networks).scorer
    rows = tensors["views"]
    with torch.no_grad():
        seen = apply_views(_scaled(tensors), rows, scorer.size)
        embeds = scorer(seen.flatten(0, 1)).embeds.unflatten(0, rows.shape[:2])
    return Batch({"embeds": embeds}, {"scorer_forward": rows.shape[1]})


def relevance(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """How much each patch makes the embedding point along `direction`."""
    del static
    scorer = _networks(networks).scorer
    found = scorer.relevance(scorer.resized(tensors["image"]), tensors["direction"])
    return Batch({"relevance": found.detach()}, {"scorer_forward": 1, "scorer_backward": 1})


def inpainting_step(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Latents after a DDIM step; each item has its own timestep, levels, prompt, hole and scale.

    With `uncond_embeds` two forwards an item, under guidance; without, one.
    """
    del static
    names = ("timestep", "alpha", "alpha_prev")
    timestep, alpha, alpha_to = (tensors[name] for name in names)
    moved = _moved(networks, tensors, timestep, alpha, alpha_to)
    return Batch({"latents": moved}, {"unet_forward": _forwards(tensors)})


class InpaintingSample(Stepped):
    """Latents after a row of DDIM steps, `timesteps`, `alphas` and `alphas_prev` in order.

    What `inpainting_step` does, again and again, without a message between two steps. All items of
    one number of steps share batches, whichever of their steps they are at.
    """

    def begin(self, networks: Networks, tensors: Tensors, static: Static) -> Midway:
        """No step is taken yet.

        Raises:
            InvalidRequestError: timesteps and levels differ in number.
        """
        del networks, static
        numbers = {name: tensors[name].shape[1] for name in _MOVES}
        if len(set(numbers.values())) > 1:
            raise InvalidRequestError(
                f"inpainting.sample found {numbers}, expected as many of each: one per step"
            )
        taken = torch.zeros_like(tensors["timesteps"][:, 0])
        return Midway({**tensors, "taken": taken}, ["step"] * len(taken))

    def step(self, networks: Networks, tensors: Tensors, static: Static, phase: Any) -> Midway:
        del static, phase
        taken = tensors["taken"]
        timestep, alpha, alpha_to = (
            tensors[name].gather(1, taken[:, None])[:, 0] for name in _MOVES
        )
        moved = _moved(networks, tensors, timestep, alpha, alpha_to)
        total = tensors["timesteps"].shape[1]
        phases = [None if number + 1 == total else "step" for number in taken.tolist()]
        state = {**tensors, "latents": moved, "taken": taken + 1}
        return Midway(state, phases, {"unet_forward": _forwards(tensors)})

    def end(self, networks: Networks, tensors: Tensors, static: Static) -> Batch:
        del networks, static
        return Batch({"latents": tensors["latents"]}, {})


REGION_OPERATIONS: Mapping[str, Operation] = {
    "dino.features": features,
    "scorer.embed_text": embed_text,
    "scorer.image": image,
    "scorer.views": views,
    "scorer.relevance": relevance,
    "inpainting.step": inpainting_step,
    "inpainting.sample": InpaintingSample(),
}
_MOVES = ("timesteps", "alphas", "alphas_prev")
_MOVED = ("latents", "embeds", "uncond_embeds", "guidance_scale", "mask", "left")


def _networks(networks: Networks) -> RegionNetworks:
    assert networks.regions is not None, "a host without these networks has not these operations"
    return networks.regions


def _scaled(tensors: Tensors) -> Float[Tensor, "batch 3 height width"]:
    return tensors["image"] * tensors["scale"].view(-1, 1, 1, 1)


def _forwards(tensors: Tensors) -> int:
    return 2 if "uncond_embeds" in tensors else 1


def _moved(
    networks: Networks,
    tensors: Tensors,
    timestep: Int[Tensor, " batch"],
    alpha: Float[Tensor, " batch"],
    alpha_to: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """A DDIM step, under guidance where there are `uncond_embeds`."""
    inputs = {name: tensors[name] for name in _MOVED if name in tensors}
    inputs |= {"timestep": timestep, "alpha": alpha, "alpha_to": alpha_to}
    name = f"inpainting_move {_forwards(tensors)}"
    step = partial(inpainting_move, _networks(networks).inpainter)
    return networks.steps.run(name, step, inputs)["latents"]


def inpainting_move(predict: Inpainter, tensors: Tensors) -> dict[str, Tensor]:
    """The step of `inpainting_step`; nothing here waits for the device."""
    latents, embeds, mask, left = (tensors[n] for n in ("latents", "embeds", "mask", "left"))
    timestep = tensors["timestep"]
    with torch.no_grad():
        if "uncond_embeds" in tensors:
            both = torch.cat([tensors["uncond_embeds"], embeds])
            uncond, cond = predict(
                *(torch.cat([t, t]) for t in (latents, timestep)),
                both,
                *(torch.cat([t, t]) for t in (mask, left)),
            ).chunk(2)
            noise = uncond + tensors["guidance_scale"].view(-1, 1, 1, 1) * (cond - uncond)
        else:
            noise = predict(latents, timestep, embeds, mask, left)
        alpha, alpha_to = (tensors[n].view(-1, 1, 1, 1) for n in ("alpha", "alpha_to"))
        clean = (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        return {"latents": alpha_to.sqrt() * clean + (1 - alpha_to).sqrt() * noise}
