"""Quality against accelerator seconds as a small SVG."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 190, 16, 44
_METHOD, _BASELINE, _GRID, _INK = "#1f5fa8", "#c2410c", "#dddddd", "#222222"


@dataclass(frozen=True)
class Point:
    """An arm.

    Attributes:
        name: of the arm.
        seconds: accelerator seconds of an edit, more than 0.
        quality: mean, higher is better.
        low: of its interval.
        high: of its interval.
        is_method: whether it is a method of the farm, not what one is compared with.
    """

    name: str
    seconds: float
    quality: float
    low: float
    high: float
    is_method: bool


def draw_tradeoff(points: Sequence[Point], title: str = "success") -> str:
    """An SVG: seconds to the right (logarithmic), quality upwards, intervals as bars."""
    shown = [p for p in points if p.seconds > 0 and math.isfinite(p.quality)]
    body: list[str] = []
    if shown:
        axes = _Axes.around(shown)
        body += axes.lines(title)
        heights = _apart([axes.y(p.quality) for p in shown])
        for point, height in zip(shown, heights, strict=True):
            body += _mark(axes, point, height)
    style = f'font-family="sans-serif" font-size="12" fill="{_INK}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" {style}>\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


@dataclass(frozen=True)
class _Axes:
    first: int
    """Power of ten where seconds begin."""
    last: int
    bottom: float
    top: float

    @classmethod
    def around(cls, points: Sequence[Point]) -> "_Axes":
        first = math.floor(math.log10(min(p.seconds for p in points)))
        last = math.ceil(math.log10(max(p.seconds for p in points)))
        bottom = min(p.low for p in points)
        top = max(p.high for p in points)
        room = max((top - bottom) * 0.06, 1e-9)
        low = bottom - room if bottom < 0 else max(0.0, bottom - room)
        return cls(first, max(last, first + 1), low, top + room)

    def x(self, seconds: float) -> float:
        share = (math.log10(seconds) - self.first) / (self.last - self.first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, quality: float) -> float:
        share = (quality - self.bottom) / (self.top - self.bottom)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def lines(self, title: str) -> list[str]:
        right, below = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        found: list[str] = []
        for power in range(self.first, self.last + 1):
            x = self.x(10.0**power)
            found.append(_line(x, _TOP, x, below, _GRID))
            found.append(_text(x, below + 16, f"{10.0**power:g}", "middle"))
        for step in range(5):
            quality = self.bottom + (self.top - self.bottom) * step / 4
            y = self.y(quality)
            found.append(_line(_LEFT, y, right, y, _GRID))
            found.append(_text(_LEFT - 6, y + 4, f"{quality:.2f}", "end"))
        middle = (_LEFT + right) / 2
        found.append(_text(middle, below + 34, "accelerator seconds an edit", "middle"))
        found.append(_text(_LEFT, _TOP - 4, title, "start"))
        return found


def _mark(axes: _Axes, point: Point, height: float) -> list[str]:
    """A dot with its interval, and its name at the right, at a height of its own."""
    colour = _METHOD if point.is_method else _BASELINE
    x, y = axes.x(point.seconds), axes.y(point.quality)
    right = _WIDTH - _RIGHT
    return [
        _line(x, axes.y(point.low), x, axes.y(point.high), colour),
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>',
        f'<path d="M{x + 5:.1f} {y:.1f}L{right + 4} {height:.1f}" stroke="{_GRID}" fill="none"/>',
        f'<text x="{right + 8}" y="{height + 4:.1f}" fill="{colour}">{escape(point.name)}</text>',
    ]


def _apart(heights: Sequence[float], least: float = 15.0) -> list[float]:
    """The heights moved as little as it takes, downwards, for names not to overlap."""
    order = sorted(range(len(heights)), key=lambda n: heights[n])
    moved = list(heights)
    for before, after in itertools.pairwise(order):
        moved[after] = max(moved[after], moved[before] + least)
    over = max(moved, default=0.0) - (_HEIGHT - 6)
    return [height - max(0.0, over) for height in moved]


def _line(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    return f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
