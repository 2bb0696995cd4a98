"""Training curves as a picture: one small plot a figure, drawn with Pillow alone."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from farm.zoo.recipes.curves import Point

_WIDTH, _HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 26, 24
_COLUMNS = 2
_INK, _LINE, _HELD_OUT, _GRID = "#222222", "#1f5fa8", "#c2410c", "#dddddd"


def plot_curves(curves: Sequence[tuple[str, list[Point]]]) -> bytes:
    """A PNG with one plot for every figure of every curve, held-out figures in another colour.

    Args:
        curves: a name and the points of each.
    """
    plots = [
        (f"{name}: {figure}", series)
        for name, points in curves
        for figure, series in _series(points).items()
    ]
    rows = -(-len(plots) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _WIDTH, max(1, rows) * _HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, series) in enumerate(plots):
        corner = (number % _COLUMNS * _WIDTH, number // _COLUMNS * _HEIGHT)
        _plot(draw, corner, title, series)
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    return data.getvalue()


def _series(points: list[Point]) -> dict[str, list[tuple[float, float]]]:
    """(step, value) by figure, without what is not finite."""
    names = {name: None for point in points for name in point if name != "step"}
    return {
        name: [(p["step"], p[name]) for p in points if name in p and math.isfinite(p[name])]
        for name in names
    }


def _plot(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    title: str,
    series: list[tuple[float, float]],
) -> None:
    x0, y0 = corner[0] + _LEFT, corner[1] + _TOP
    x1, y1 = corner[0] + _WIDTH - _RIGHT, corner[1] + _HEIGHT - _BOTTOM
    draw.text((corner[0] + 8, corner[1] + 7), title, fill=_INK)
    draw.rectangle((x0, y0, x1, y1), outline=_GRID)
    if not series:
        return
    last = max(step for step, _ in series) or 1.0
    low, high = min(v for _, v in series), max(v for _, v in series)
    if low == high:
        low, high = low - 0.5, high + 0.5

    def place(step: float, value: float) -> tuple[float, float]:
        return x0 + (x1 - x0) * step / last, y1 - (y1 - y0) * (value - low) / (high - low)

    for value in (low, (low + high) / 2, high):
        y = place(0, value)[1]
        draw.line((x0, y, x1, y), fill=_GRID)
        draw.text((corner[0] + 8, y - 6), f"{value:.4g}", fill=_INK)
    draw.text((x0, y1 + 6), "0", fill=_INK)
    draw.text((x1 - 44, y1 + 6), f"{last:g}", fill=_INK)
    held_out = "heldout/" in title
    spots = [place(*point) for point in series]
    if len(spots) > 1:
        draw.line(spots, fill=_HELD_OUT if held_out else _LINE, width=2)
    if held_out or len(spots) == 1:
        for x, y in spots:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_HELD_OUT)
