"""From scenes to pixels: signed distances, anti-aliased edges, outlines and patterns."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.zoo.scenes.backgrounds import draw_backgrounds
from farm.zoo.scenes.scenes import Scenes
from farm.zoo.scenes.vocabulary import COLOURS, SHAPES, SIZE, SLOTS

_CHUNK = 64  # fits the intermediate pictures into a core's cache: half the time of one large batch
_PALETTE = torch.tensor(list(COLOURS.values()))
_PIXEL = torch.arange(SIZE) + 0.5
_WINDOW = 46  # the largest object, outline included, fits into a square of this side
_OUTLINE = 1.3


@dataclass(frozen=True)
class Rendering:
    """Pictures of scenes with the exact coverage of each object."""

    images: Float[Tensor, "scenes 3 height width"]
    masks: Float[Tensor, "scenes slots height width"]
    """Coverage by each object, [0, 1]; zero for unused slots. Objects do not overlap."""


def render(scenes: Scenes) -> Rendering:
    """Draw scenes; the same scenes give the same pixels."""
    images = torch.empty(len(scenes), 3, SIZE, SIZE)
    masks = torch.zeros(len(scenes), SLOTS, SIZE, SIZE)
    for start in range(0, len(scenes), _CHUNK):
        part = scenes[slice(start, start + _CHUNK)]
        picture = images[start : start + _CHUNK]
        picture.copy_(draw_backgrounds(part.background, part.texture))
        for slot in range(SLOTS):
            rows = (part.count > slot).nonzero()[:, 0]
            if len(rows):
                _draw_objects(part, slot, rows, picture, masks[start : start + _CHUNK, slot])
    return Rendering(images.clamp_(0, 1), masks)


def _draw_objects(scenes: Scenes, slot: int, rows: Tensor, images: Tensor, masks: Tensor) -> None:
    """Paint object `slot` of the scenes `rows` into `images` and its coverage into `masks`."""
    shape, colour, pattern = (a[rows, slot] for a in (scenes.shape, scenes.colour, scenes.pattern))
    centre_x, centre_y, radius, angle = scenes.geometry[rows, slot].view(-1, 4, 1, 1).unbind(1)
    left, top = (
        (c[:, 0, 0] - _WINDOW / 2).round().long().clamp(0, SIZE - _WINDOW)
        for c in (centre_x, centre_y)
    )
    steps = torch.arange(_WINDOW)
    columns, lines = left[:, None] + steps, top[:, None] + steps
    dx = (_PIXEL[columns][:, None, :] - centre_x) / radius
    dy = (_PIXEL[lines][:, :, None] - centre_y) / radius
    cos, sin = torch.cos(angle), torch.sin(angle)
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    distance = _signed_distance(shape, u, v) * radius
    coverage = (0.5 - distance).clamp_(0, 1)
    inside = (0.5 - _OUTLINE - distance).clamp_(0, 1)
    fill = _fill(colour, pattern, u, v, radius)
    outline = _PALETTE[colour].view(-1, 3, 1, 1) * 0.45 + 0.02
    paint = outline + (fill - outline) * inside[:, None]
    where = (rows[:, None, None], lines[:, :, None], columns[:, None, :])
    under = images.permute(0, 2, 3, 1)[where]
    painted = under + (paint.permute(0, 2, 3, 1) - under) * coverage[..., None]
    images.permute(0, 2, 3, 1)[where] = painted
    masks[where] = coverage


def _fill(colour: Tensor, pattern: Tensor, u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    """The object's own paint: shaded from top to bottom, with stripes or dots where asked."""
    base = _PALETTE[colour].view(-1, 3, 1, 1) * (1.04 - 0.14 * v[:, None].clamp(-1, 1))
    bright = _PALETTE[colour].mean(1) > 0.8
    second = torch.where(
        bright[:, None], torch.tensor([0.35, 0.35, 0.40]), torch.tensor([0.97, 0.97, 0.92])
    ).view(-1, 3, 1, 1)
    for kind in (1, 2):
        rows = (pattern == kind).nonzero()[:, 0]
        if len(rows):
            amount = _stripes(u[rows]) if kind == 1 else _dots(u[rows], v[rows], radius[rows])
            base[rows] += (second[rows] - base[rows]) * 0.9 * amount[:, None]
    return base


def _stripes(u: Tensor) -> Tensor:
    return torch.sigmoid(9 * torch.sin(9 * u))


def _dots(u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    """Dots 5.5 pixels apart, whatever the size of the object."""
    x, y = u * radius / 5.5, v * radius / 5.5
    off = torch.hypot(x - x.round(), y - y.round())
    return torch.sigmoid((0.32 - off) * 5.5 / 0.35)


def _signed_distance(shape: Int[Tensor, " objects"], u: Tensor, v: Tensor) -> Tensor:
    """Distance to the outline in units of the radius, negative inside."""
    distance = torch.empty_like(u)
    for kind, name in enumerate(SHAPES):
        rows = (shape == kind).nonzero()[:, 0]
        if len(rows):
            distance[rows] = _DISTANCE[name](u[rows], v[rows])
    return distance


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 0.95


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.84


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    """Tip at (0, -1.05), base from (-0.98, 0.82) to (0.98, 0.82)."""
    side = (1.87 * u.abs() - 0.98 * (v + 1.05)) / (1.87**2 + 0.98**2) ** 0.5
    return torch.maximum(side, v - 0.82)


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 0.70).abs() - 0.28


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """Two discs over a rotated square."""
    x, y = u.abs() / 1.72, (0.92 - v) / 1.72
    upper = torch.hypot(x - 0.25, y - 0.75) - 0.125**0.5
    corner = 0.5 * (x + y).clamp(min=0)
    lower = (
        torch.minimum(torch.hypot(x, y - 1), torch.hypot(x - corner, y - corner)) * (x - y).sign()
    )
    return torch.where(x + y > 1, upper, lower) * 1.72


def _cross(u: Tensor, v: Tensor) -> Tensor:
    x, y = u.abs(), v.abs()
    return torch.minimum(torch.maximum(x - 1, y - 0.38), torch.maximum(x - 0.38, y - 1))


_DISTANCE = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "heart": _heart,
    "cross": _cross,
}
