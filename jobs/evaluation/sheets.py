"""Best, median and worst edits of an arm on one small picture: source, edit, truth."""

import math
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from farm.errors import FarmError
from farm.images import decode_image
from farm.runner import load_output
from farm.storage.store import Store
from farm.zoo.evaluation import EditScore
from jobs.evaluation.baselines import Drawn
from jobs.evaluation.cases import Trial
from jobs.evaluation.running import Outcome, Outcomes
from jobs.palette_png import palette_png

Scored = tuple[Trial, EditScore]
PLACES = ("best", "median", "worst")
LARGEST = 150_000
"""Bytes of a sheet; with fewer colours where it would be more."""

_SIDE, _GAP, _LABEL, _MARGIN = 96, 4, 16, 76
_INK = "#222222"
_COLOURS = (256, 128, 64, 32)


def pick(scored: Sequence[Scored]) -> dict[str, dict[str, Scored]]:
    """By type of edit the best, the median and the worst, of edits that have a picture.

    The order is success, then what was asked, then PSNR to the truth where the edit belongs.
    """
    types: dict[str, list[Scored]] = {}
    for trial, score in scored:
        if score.error is None:
            types.setdefault(score.type, []).append((trial, score))
    picked: dict[str, dict[str, Scored]] = {}
    for kind, found in types.items():
        ordered = sorted(found, key=lambda one: _rank(one[1]), reverse=True)
        middle = ordered[len(ordered) // 2]
        picked[kind] = dict(zip(PLACES, (ordered[0], middle, ordered[-1]), strict=True))
    return picked


def _rank(score: EditScore) -> tuple[float, float, float]:
    inside = score.inside_psnr
    return (score.success, score.asked, -math.inf if math.isnan(inside) else inside)


def draw_sheet(
    picked: Mapping[str, Mapping[str, Scored]], outcomes: Outcomes, store: Store
) -> bytes:
    """A PNG with a row for each type; in it source, edit and truth of each that was picked.

    Raises:
        StoreError: an edit cannot be read.
    """
    group = 3 * _SIDE + 4 * _GAP
    height = _SIDE + _LABEL + _GAP
    sheet = Image.new("RGB", (_MARGIN + len(PLACES) * group, _LABEL + len(picked) * height))
    sheet.paste("white", (0, 0, *sheet.size))
    draw = ImageDraw.Draw(sheet)
    for column, place in enumerate(PLACES):
        text = f"{place}: source, edit, truth"
        draw.text((_MARGIN + column * group + _GAP, 2), text, fill=_INK)
    for row, (kind, places) in enumerate(picked.items()):
        top = _LABEL + row * height
        draw.text((4, top + _LABEL + _SIDE // 2), kind, fill=_INK)
        for column, place in enumerate(PLACES):
            trial, score = places[place]
            left = _MARGIN + column * group + _GAP
            draw.text((left, top + 2), _caption(trial, score), fill=_INK)
            truth = trial.case.truth
            shown = (
                truth.source.images[0],
                _edited(outcomes[trial.name], store),
                truth.target.images[0],
            )
            for number, picture in enumerate(shown):
                at = (left + number * (_SIDE + _GAP), top + _LABEL)
                sheet.paste(_tile(picture), at)
    return _packed(sheet)


def _caption(trial: Trial, score: EditScore) -> str:
    word = trial.case.edit.target_word
    said = "success" if score.success else "as asked" if score.asked else "not as asked"
    return f"{word}: {said}, {score.inside_psnr:.1f} dB inside"


def _edited(outcome: Outcome, store: Store) -> Float[Tensor, "3 height width"]:
    assert not isinstance(outcome, FarmError), "only edits with a picture are picked"
    if isinstance(outcome, Drawn):
        return outcome.image
    return decode_image(load_output(store, outcome, "edited.png")).image


def _tile(picture: Float[Tensor, "3 height width"]) -> Image.Image:
    levels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(levels).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _packed(sheet: Image.Image) -> bytes:
    """As PNG, with as many colours as fit."""
    data = b""
    for colours in _COLOURS:
        data = palette_png(sheet, colours)
        if len(data) <= LARGEST:
            break
    return data
