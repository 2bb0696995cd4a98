"""The words of the scenes world and what each looks like."""

from types import MappingProxyType
from typing import Literal

SIZE = 64
"""Side of a picture in pixels."""

SLOTS = 2
"""Most objects in one picture."""

SHAPES = ("circle", "square", "triangle", "ring", "heart", "cross")
PATTERNS = ("plain", "striped", "dotted")
SIZES = ("small", "medium", "large")
RADII = ((10.5, 12.5), (13.0, 15.5), (16.5, 19.5))
"""Range of the radius in pixels, per size."""

COLOURS = MappingProxyType(
    {
        "red": (0.88, 0.12, 0.12),
        "orange": (0.98, 0.52, 0.06),
        "yellow": (0.98, 0.90, 0.15),
        "green": (0.10, 0.68, 0.20),
        "blue": (0.12, 0.25, 0.90),
        "purple": (0.55, 0.15, 0.75),
        "pink": (1.00, 0.55, 0.75),
        "white": (0.97, 0.97, 0.97),
    }
)
COLOUR_NAMES = tuple(COLOURS)

BACKGROUNDS = ("sky", "grass", "sand", "brick", "water", "snow", "night", "wood")

EditType = Literal["colour", "shape", "pattern", "background", "add", "remove"]
EDIT_TYPES: tuple[EditType, ...] = ("colour", "shape", "pattern", "background", "add", "remove")
DEFAULT_TYPES: tuple[EditType, ...] = ("colour", "shape", "pattern", "background")


def is_held_out(shape: int, colour: int, background: int) -> bool:
    """Whether the combination is one that no training ever sees: 43 of the 384 are.

    A diagonal rule, so that each shape, colour and background alone is seen in training.
    """
    return (shape * 7 + colour * 3 + background) % 9 == 0
