"""The background mask of NS-LPIPS: where a word's attention is not (StyleDiffusion spec §8.1)."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from farm.adapters.attention import AttentionControl
from farm.errors import UnknownWordError
from farm.model_spec import ModelSpec
from farm.samplers.ddim import NoiseSchedule, ddim_invert

MASK_SIDE = 256
Heads = Literal["upper", "all"]


@runtime_checkable
class Predictor(Protocol):
    """A UNet under attention control, as `farm.backbones` has it."""

    def __call__(
        self,
        latents: Float[Tensor, "batch channels height width"],
        timesteps: Int[Tensor, " batch"],
        embeds: Float[Tensor, "batch tokens embed"],
        control: AttentionControl | None = None,
        /,
    ) -> Float[Tensor, "batch channels height width"]: ...


def released_token(prompt: str, word: str) -> int:
    """The token whose map the released program takes for a word: its place among the words, plus 1.

    Right only as long as each earlier word is one token (spec §8.1). The corrected choice is all of
    the word's own tokens, which the method's tokenizer knows.

    Raises:
        UnknownWordError: the prompt, split at single spaces, has no such word.
    """
    words = prompt.split(" ")
    if word not in words:
        raise UnknownWordError(
            f"{word!r} is not in the prompt {prompt!r}: use one of its words ({', '.join(words)})"
        )
    return words.index(word) + 1


def inversion_attention(
    predictor: Predictor,
    clean: Float[Tensor, "channels height width"],
    embeds: Float[Tensor, "tokens embed"],
    tokens: Sequence[int],
    spec: ModelSpec,
    *,
    num_steps: int = 50,
) -> list[Float[Tensor, "steps heads pixels"]]:
    """Attention to some tokens while the picture is inverted, by recorded layer.

    DDIM inversion with the source prompt alone, without guidance; one forward pass a step.

    Args:
        predictor: the UNet.
        clean: latents of the source picture.
        embeds: of the source prompt.
        tokens: positions in the prompt; their maps are added up.
        spec: of the model; says which maps are recorded.
        num_steps: 50 in the released program.
    """
    steps: list[list[Tensor]] = []

    def denoiser(
        latents: Float[Tensor, "channels height width"], timestep: int
    ) -> Float[Tensor, "channels height width"]:
        control = AttentionControl(record_pixels=spec.map_size**2)
        noise = predictor(latents[None], torch.tensor([timestep]), embeds[None], control)
        steps.append([maps[0, ..., list(tokens)].sum(dim=-1) for maps in control.maps])
        return noise[0]

    with torch.no_grad():
        for _ in ddim_invert(denoiser, clean, NoiseSchedule.from_spec(spec).inverting(num_steps)):
            pass
    return [torch.stack(layer) for layer in zip(*steps, strict=True)]


def average_attention(
    layers: Sequence[Float[Tensor, "steps _ pixels"]], *, heads: Heads
) -> Float[Tensor, "size size"]:
    """Mean over steps, layers and heads as a square map.

    The released program halves each layer's heads as if there were an unconditional half, and so
    averages the upper half of them ("upper", spec §8.1); "all" takes every head.
    """
    kept = [layer[:, layer.shape[1] // 2 :] if heads == "upper" else layer for layer in layers]
    flat = torch.cat([layer.mean(dim=0) for layer in kept])  # (all heads, pixels)
    size = round(flat.shape[1] ** 0.5)
    return flat.mean(dim=0).unflatten(0, (size, size))


def foreground(attention: Float[Tensor, "size size"]) -> UInt8[Tensor, "side side"]:
    """A map over its maximum as 256 levels, cut down not rounded, enlarged by Pillow's bicubic."""
    levels = (255 * attention / attention.max()).to(torch.uint8)
    enlarged = Image.fromarray(levels.numpy()).resize(
        (MASK_SIDE, MASK_SIDE), Image.Resampling.BICUBIC
    )
    return torch.from_numpy(np.array(enlarged))


def background(attention: Float[Tensor, "size size"]) -> UInt8[Tensor, "side side"]:
    """255 where nothing is the word's, 0 where its attention is greatest."""
    return 255 - foreground(attention)
