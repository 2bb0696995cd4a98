"""Pictures and tables that explain an edit."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from farm.images import Placement
from farm.masks import Box
from farm.methods.learnable_regions.editing import Candidate, RegionEdit
from farm.methods.learnable_regions.searched import Search

_YELLOW = (1.0, 0.85, 0.0)
_GREEN = (0.1, 0.9, 0.3)
_HEAT = (1.0, 0.1, 0.0)
_STRONGEST = 0.6
_MARGIN = 4
"""Pixels above and below a curve."""
_LINE_SHARE = 3 / 256
"""Width of lines over the picture's shorter side: the released program's three of 256 pixels."""


def draw_boxes(
    image: Float[Tensor, "3 height width"], boxes: Sequence[Box], winner: Box | None = None
) -> Float[Tensor, "3 height width"]:
    """The picture with yellow outlines of boxes, and a green one of the winner on top."""
    drawn = image.clone()
    for box in boxes:
        _outline(drawn, box, _YELLOW)
    if winner is not None:
        _outline(drawn, winner, _GREEN)
    return drawn


def draw_attention(
    image: Float[Tensor, "3 height width"],
    saliency: Float[Tensor, "rows columns"],
    anchors: Int[Tensor, "anchors 2"],
    placement: Placement,
) -> Float[Tensor, "3 height width"]:
    """The picture, redder where it is more salient, with a yellow square on each anchor.

    Args:
        image: the original.
        saliency: 0 to 1, of cells of the networks' square.
        anchors: row and column of each.
        placement: of the original in that square.
    """
    size, rows = placement.size, saliency.shape[0]
    square, seen = placement.square, placement.seen
    enlarged = F.interpolate(saliency[None, None], (size, size), mode="bilinear")[0]
    part = square.of(enlarged)[None]
    strength = torch.zeros(1, *image.shape[-2:])
    shape = (seen.height, seen.width)
    seen.of(strength).copy_(F.interpolate(part, shape, mode="bilinear")[0].clamp(0, 1))
    drawn = torch.lerp(image, torch.tensor(_HEAT).view(3, 1, 1), _STRONGEST * strength)
    cell = size / rows
    half = max(1, round(min(shape) / rows / 4))
    for row, column in anchors.tolist():
        y = seen.top + round(((row + 0.5) * cell - square.top) * seen.height / square.height)
        x = seen.left + round(((column + 0.5) * cell - square.left) * seen.width / square.width)
        _fill(drawn, Box(x - half, y - half, x + half + 1, y + half + 1), _YELLOW)
    return drawn


def draw_curve(
    values: Float[Tensor, " points"], height: int = 96, width: int = 192
) -> Float[Tensor, "3 {height} {width}"]:
    """A curve from its first to its last point, its largest value on top; black on white.

    Args:
        values: finite, at least one.
        height: of the picture, in pixels.
        width: likewise.
    """
    columns = F.interpolate(
        values[None, None].float(), size=width, mode="linear", align_corners=True
    )[0, 0]
    low, high = columns.aminmax()
    inner = height - 2 * _MARGIN - 1
    rows = _MARGIN + inner * (high - columns) / (high - low).clamp(min=torch.finfo().tiny)
    drawn = torch.ones(3, height, width)
    last = rows.tolist()[0]
    for column, row in enumerate(rows.tolist()):
        top, bottom = sorted((round(last), round(row)))
        drawn[:, top : bottom + 1, column] = 0
        last = row
    return drawn


def report(output: RegionEdit, search: Search) -> dict[str, Any]:
    """All regions, their scores and the training, for JSON."""
    table = search.state.table
    return {
        "winner": _row(output.candidates[0]),
        "candidates": [_row(candidate) for candidate in output.candidates],
        "anchors": search.state.anchors.tolist(),
        "boxes": search.state.boxes.tolist(),
        "table": [[_or_none(v) for v in row] for row in table.tolist()],
        "probabilities_before": search.before.exp().tolist(),
        "probabilities_after": search.after.exp().tolist(),
        "loss_curve": search.curve.tolist(),
    }


def _row(candidate: Candidate) -> dict[str, Any]:
    region, score = candidate.region, candidate.score
    return {
        "anchor": region.anchor,
        "size": region.size,
        "box": list(region.box),
        "draw": region.draw,
        "steps": candidate.steps,
        "loss": score.loss,
        "loss_clip": score.clip,
        "loss_directional": score.directional,
        "loss_structure": score.structure,
        "misfit": score.misfit,
        "text_similarity": score.text,
        "image_similarity": score.image,
        "final_score": candidate.final,
        "verdict": candidate.verdict,
    }


def _or_none(value: float) -> float | None:
    return value if value == value else None  # JSON has no nan


def _outline(
    image: Float[Tensor, "3 height width"], box: Box, colour: tuple[float, float, float]
) -> None:
    left, top, right, bottom = box
    width = max(1, round(_LINE_SHARE * min(image.shape[-2:])))
    width = min(width, right - left, bottom - top)
    _fill(image, Box(left, top, right, top + width), colour)
    _fill(image, Box(left, bottom - width, right, bottom), colour)
    _fill(image, Box(left, top, left + width, bottom), colour)
    _fill(image, Box(right - width, top, right, bottom), colour)


def _fill(
    image: Float[Tensor, "3 height width"], box: Box, colour: tuple[float, float, float]
) -> None:
    """Colour what of a box lies in the picture, in place."""
    left, top = max(box.left, 0), max(box.top, 0)
    image[:, top : max(box.bottom, top), left : max(box.right, left)] = torch.tensor(colour).view(
        3, 1, 1
    )
