"""Regions drawn by inpainting, many at once, step by step."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.images import Placement
from farm.masks import Box
from farm.methods.learnable_regions.canvas import (
    Canvas,
    Hole,
    changed_part,
    crop_window,
    cut_out,
    paste,
    scaled_down,
)
from farm.methods.learnable_regions.config import RenderConfig
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.regions import InpaintQuery
from farm.samplers.ddim import Move, NoiseSchedule
from farm.training import keyed_generator

_NOISE = "learnable_regions.noise"


@dataclass(frozen=True)
class Region:
    """A place to edit.

    Attributes:
        anchor: number of its anchor.
        size: number of its size.
        box: in pixels of the original.
        draw: number of its noise, from 0.
    """

    anchor: int
    size: int
    box: Box
    draw: int = 0


@dataclass(frozen=True)
class Drawing:
    """A region with what was drawn in it.

    Attributes:
        region: where.
        canvas: what the model saw with it.
        drawn: the model's square, in [0, 1].
    """

    region: Region
    canvas: Canvas
    drawn: Float[Tensor, "3 size size"]


@dataclass(frozen=True)
class _Prepared:
    """A region ready to be drawn in."""

    canvas: Canvas
    mask: Float[Tensor, "1 latent latent"]
    left: Float[Tensor, "channels latent latent"]


def sampling_moves(schedule: NoiseSchedule, num_steps: int, spacing: str) -> list[Move]:
    """Moves from noise to picture: "leading" as Stable Diffusion's pipelines, or "trailing".

    Trailing timesteps begin with the noisiest of all, where pure noise belongs; with few steps the
    leading ones begin far below it (Lin et al., arXiv:2305.08891, §3.3).
    """
    if spacing == "leading":
        return schedule.denoising(num_steps)
    levels = len(schedule.alphas_cumprod)  # D5
    timesteps = [round(levels - n * levels / num_steps) - 1 for n in range(num_steps)]
    alphas = [schedule.alpha_at(t) for t in timesteps]
    ends = [*alphas[1:], schedule.alpha_at(0)]
    return [Move(*move) for move in zip(timesteps, alphas, ends, strict=True)]


class Easel:
    """Draws regions of one picture for one prompt.

    A region is prepared once, however often it is drawn. Noise depends on the anchor and the number
    of the draw alone, so that sizes of an anchor, and few steps and many, are compared under common
    noise.

    Args:
        image: the original, in [0, 1].
        square: the same as CLIP is shown it.
        placement: of the original in that square.
        client: the frozen networks.
        embeds: of the target prompt.
        uncond_embeds: of the empty prompt.
        config: how to draw.
        seed: of the noise.
    """

    def __init__(
        self,
        image: Float[Tensor, "3 height width"],
        square: Float[Tensor, "3 size size"],
        placement: Placement,
        client: RegionBackbones,
        embeds: Float[Tensor, "tokens embed"],
        uncond_embeds: Float[Tensor, "tokens embed"],
        config: RenderConfig,
        *,
        seed: int,
    ) -> None:
        self._image, self._square, self._placement = image, square, placement
        self._client, self._config, self._seed = client, config, seed
        self._embeds, self._uncond_embeds = embeds, uncond_embeds
        self._prepared: dict[Box, _Prepared] = {}
        self._going: tuple[Region, Tensor] | None = None

    def draw(
        self, regions: Sequence[Region], num_steps: int
    ) -> Generator[int, None, list[Drawing]]:
        """Draw regions side by side; all take each step together.

        Yields:
            After each DDIM step, its number from 1.
        """
        client, config = self._client, self._config
        self._prepare(regions)
        schedule = NoiseSchedule.from_spec(client.spec)
        latents = [self.noise(region) for region in regions]
        moves = sampling_moves(schedule, num_steps, config.spacing)
        for number, move in enumerate(moves, 1):
            queries = [
                self._query(region, current, move)
                for region, current in zip(regions, latents, strict=True)
            ]
            latents = client.inpaint(queries)
            self._going = (regions[0], latents[0])
            yield number
        pictures = client.decode(latents)
        return [
            Drawing(region, self._prepared[region.box].canvas, drawn)
            for region, drawn in zip(regions, pictures, strict=True)
        ]

    def noise(self, region: Region) -> Float[Tensor, "channels latent latent"]:
        """Where the drawing of a region starts."""
        more = (region.draw,) if region.draw else ()
        generator = keyed_generator(self._seed, _NOISE, region.anchor, *more)
        return torch.randn(self._client.spec.latent_shape, generator=generator)

    def on_square(self, drawing: Drawing) -> Float[Tensor, "3 size size"]:
        """The edited picture as CLIP is shown it."""
        small = scaled_down(drawing.canvas, self._placement)
        return paste(self._square, drawing.drawn, small, self._config)[0]

    def finished(
        self, drawing: Drawing, threshold: float = 0.0
    ) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "1 height width"]]:
        """The edited original and its region, at the original's resolution.

        With a threshold, what did not change by more than it keeps the original's pixels (D16).
        """
        changed = None
        if threshold > 0:
            changed = changed_part(
                self._image, drawing.drawn, drawing.canvas, threshold, self._cell
            )
        return paste(self._image, drawing.drawn, drawing.canvas, self._config, changed)

    def picture(self, drawing: Drawing) -> Float[Tensor, "3 height width"]:
        """The edited original alone."""
        return self.finished(drawing)[0]

    def half_way(self) -> Float[Tensor, "3 height width"]:
        """The first of the regions that are being drawn as it stands, noise included."""
        assert self._going is not None, "there is a step behind us"
        region, latents = self._going
        (drawn,) = self._client.decode([latents])
        return self.picture(Drawing(region, self._prepared[region.box].canvas, drawn))

    def _query(
        self, region: Region, latents: Float[Tensor, "channels latent latent"], move: Move
    ) -> InpaintQuery:
        prepared = self._prepared[region.box]
        return InpaintQuery(
            latents=latents,
            timestep=move.timestep,
            alpha=move.alpha,
            alpha_prev=move.alpha_to,
            embeds=self._embeds,
            uncond_embeds=self._uncond_embeds,
            guidance_scale=self._config.guidance_scale,
            mask=prepared.mask,
            left=prepared.left,
        )

    def _prepare(self, regions: Sequence[Region]) -> None:
        new = list(dict.fromkeys(r.box for r in regions if r.box not in self._prepared))
        cut = [self._cut_out(box) for box in new]
        lefts = self._client.encode([hole.picture for _, hole in cut])
        for box, (canvas, hole), left in zip(new, cut, lefts, strict=True):
            self._prepared[box] = _Prepared(canvas, hole.mask, left)

    def _cut_out(self, box: Box) -> tuple[Canvas, Hole]:
        spec = self._client.spec
        height, width = self._image.shape[-2:]
        window = self._placement.seen
        if self._config.paste:
            window = crop_window(box, height, width, spec.image_size, self._config.context)
        paste = self._config.paste
        return cut_out(self._image, box, window, spec.image_size, self._cell, whole_cells=paste)

    @property
    def _cell(self) -> int:
        """Pixels along a side of a latent cell."""
        return self._client.spec.image_size // self._client.spec.latent_size
