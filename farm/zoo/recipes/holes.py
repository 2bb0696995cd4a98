"""Holes for inpainting: where they are, what the UNet is told of them, and a pool on disk.

Stable Diffusion's layout: the hole is grey in the picture (zero in [-1, 1]), that picture goes
through the autoencoder, and the mask reaches the latents by every fourth pixel.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int
from torch import Tensor

from farm.backbones.stable_diffusion import Autoencoder
from farm.masks import boxes_to_masks
from farm.zoo.recipes.latents import weights_digest
from farm.zoo.recipes.pool_files import Tell, cached_tensors
from farm.zoo.scenes.boxes import bounding_boxes
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import SIZE

_CHUNK = 256
_LATENT_PIXELS = 4
_DRAWING = "a"  # of the holes: another letter where `draw_holes` draws differently

_WHOLE, _COVERING, _ACROSS = 0.1, 0.55, 0.2
"""Shares of holes: the whole picture, over an object, somewhere across one; the rest anywhere."""


@dataclass(frozen=True)
class HolePool:
    """Training scenes, each with several holes."""

    scenes: Scenes
    latents: Float[Tensor, "scenes 4 16 16"]
    """Scaled posterior means of whole pictures, fp16."""
    masks: Float[Tensor, "scenes slots 16 16"]
    """Coverage per latent cell by each object, fp16."""
    holes: Int[Tensor, "scenes holes 4"]
    """Left, top, right, bottom in pixels, exclusive; int16."""
    left: Float[Tensor, "scenes holes 4 16 16"]
    """Latents of the pictures with each hole in grey, fp16."""

    def condition(
        self, rows: Int[Tensor, " batch"], which: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch 5 16 16"]:
        """The five channels of hole number `which` of each scene."""
        masks = boxes_to_masks(self.holes[rows, which].float(), SIZE, SIZE)
        return torch.cat([latent_mask(masks), self.left[rows, which].float()], 1)


def latent_mask(mask: Float[Tensor, "batch 1 64 64"]) -> Float[Tensor, "batch 1 16 16"]:
    """The hole as the UNet is told of it: the first pixel of each latent cell (nearest)."""
    return mask[..., ::_LATENT_PIXELS, ::_LATENT_PIXELS]


def with_hole(
    images: Float[Tensor, "batch 3 64 64"], mask: Float[Tensor, "batch 1 64 64"]
) -> Float[Tensor, "batch 3 64 64"]:
    """Pictures in [0, 1] whose hole (mask over 1/2) is grey."""
    return torch.where(mask > 0.5, 0.5, images)


def hole_condition(
    autoencoder: Autoencoder,
    images: Float[Tensor, "batch 3 64 64"],
    mask: Float[Tensor, "batch 1 64 64"],
) -> Float[Tensor, "batch 5 16 16"]:
    """What follows the noisy latents: the hole, and the latents of the picture without it."""
    with torch.no_grad():
        left = torch.cat([autoencoder.encode(x) for x in with_hole(images, mask).split(64)])
    return torch.cat([latent_mask(mask), left], 1)


def draw_holes(
    masks: Float[Tensor, "scenes slots 64 64"],
    count: Int[Tensor, " scenes"],
    generator: torch.Generator,
) -> Int[Tensor, "scenes 4"]:
    """One box a scene (left, top, right, bottom): most cover an object of it, with any margin.

    An object that is covered whole must be drawn from the caption; the margins, up to 24 pixels a
    side, leave its size and place open.
    """
    number = len(masks)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(number, *shape, generator=generator)

    kind = uniform()
    slot = (uniform() * count).long()
    bounds = bounding_boxes(masks[torch.arange(number), slot])
    outwards = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    margin = 1 + 3 * uniform(4) + torch.where(uniform(1) < 0.6, 20 * uniform(4), 0)
    covering = bounds + outwards * margin
    middle = (bounds[:, :2] + bounds[:, 2:]) / 2
    shifted = middle + 20 * (uniform(2) - 0.5)
    half = (14 + 34 * uniform(2)) / 2
    across = torch.cat([shifted - half, shifted + half], 1)
    centre = SIZE * uniform(2)
    half = (12 + 36 * uniform(2)) / 2
    anywhere = torch.cat([centre - half, centre + half], 1)
    box = torch.where((kind < _WHOLE + _COVERING + _ACROSS)[:, None], across, anywhere)
    box = torch.where((kind < _WHOLE + _COVERING)[:, None], covering, box)
    box = torch.where((kind < _WHOLE)[:, None], torch.tensor([0.0, 0.0, SIZE, SIZE]), box)
    return box.round().long().clamp(0, SIZE)


def hole_pool(
    autoencoder_folder: Path, count: int, seed: int, holes: int, cache: Path, *, two_share: float
) -> HolePool:
    """`count` training scenes with `holes` holes each, from `cache` where they were made before."""
    key = weights_digest(autoencoder_folder, f"{_DRAWING}/{count}/{seed}/{holes}/{two_share}")
    tensors = cached_tensors(
        cache / f"holes-{key}.safetensors",
        lambda tell: _encode(autoencoder_folder, count, seed, holes, two_share, tell),
    )
    scenes = Scenes(**{f.name: tensors[f.name] for f in fields(Scenes)})
    names = ("latents", "masks", "holes", "left")
    return HolePool(scenes, *(tensors[name] for name in names))


def _encode(
    folder: Path, count: int, seed: int, holes: int, two_share: float, tell: Tell
) -> dict[str, Tensor]:
    autoencoder = Autoencoder(AutoencoderKL.from_pretrained(folder).float())
    generator = generator_for("train", seed, "holes")
    scenes = sample_scenes(count, generator, split="train", two_share=two_share)
    latents = torch.empty(count, 4, 16, 16, dtype=torch.float16)
    masks = torch.empty(count, 2, 16, 16, dtype=torch.float16)
    boxes = torch.empty(count, holes, 4, dtype=torch.int16)
    left = torch.empty(count, holes, 4, 16, 16, dtype=torch.float16)
    for start in range(0, count, _CHUNK):
        tell(start, count)
        rows = slice(start, start + _CHUNK)
        drawn = render(scenes[rows])
        masks[rows] = torch.nn.functional.adaptive_avg_pool2d(drawn.masks, 16).half()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            latents[rows] = autoencoder.encode(drawn.images).half()
            for hole in range(holes):
                box = draw_holes(drawn.masks, scenes[rows].count, generator)
                boxes[rows, hole] = box.to(torch.int16)
                holed = with_hole(drawn.images, boxes_to_masks(box.float(), SIZE, SIZE))
                left[rows, hole] = autoencoder.encode(holed).half()
    tensors = {f.name: getattr(scenes, f.name) for f in fields(Scenes)}
    return tensors | {"latents": latents, "masks": masks, "holes": boxes, "left": left}
