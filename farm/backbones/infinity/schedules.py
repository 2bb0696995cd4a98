"""Scale schedules: the grids that a picture is made of, from one token on (spec §2.6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from farm.errors import InvalidRequestError

Grid: TypeAlias = tuple[int, int]
"""Height and width in tokens."""

Size: TypeAlias = Literal["0.06M", "0.25M", "0.60M", "1M"]
"""Pixels of a picture, as the released models call it; each is a prefix of the 1M schedule."""

SIZES: tuple[Size, ...] = get_args(Size)
OWN = "own"
"""Name of a schedule that is in no table."""

_SCALES: Mapping[Size, int] = MappingProxyType({"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13})

_SQUARE = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
_PORTRAITS: Mapping[int, str] = MappingProxyType(
    {
        1000: " ".join(f"{side},{side}" for side in _SQUARE),
        1250: "1,1 2,2 3,3 5,4 10,8 15,12 20,16 25,20 30,24 35,28 45,36 55,44 70,56",
        1333: "1,1 2,2 4,3 8,6 12,9 16,12 20,15 24,18 28,21 36,27 48,36 60,45 72,54",
        1500: "1,1 2,2 3,2 6,4 9,6 15,10 21,14 27,18 33,22 39,26 48,32 63,42 78,52",
        1750: "1,1 2,2 3,3 7,4 11,6 14,8 21,12 28,16 35,20 42,24 56,32 70,40 84,48",
        2000: "1,1 2,2 4,2 6,3 10,5 16,8 22,11 30,15 38,19 46,23 60,30 74,37 90,45",
        2500: "1,1 2,2 5,2 10,4 15,6 20,8 25,10 30,12 40,16 50,20 65,26 80,32 100,40",
        3000: "1,1 2,2 6,2 9,3 15,5 21,7 27,9 36,12 45,15 54,18 72,24 90,30 111,37",
    }
)


def _read(text: str) -> tuple[Grid, ...]:
    pairs = (pair.split(",") for pair in text.split())
    return tuple((int(height), int(width)) for height, width in pairs)


def _tables() -> dict[str, tuple[Grid, ...]]:
    """Grids at 1M by ratio height / width, landscape by transposing."""
    tables: dict[str, tuple[Grid, ...]] = {}
    for thousandths, text in _PORTRAITS.items():
        grids = _read(text)
        tables[f"{thousandths / 1000:.3f}"] = grids
        if thousandths != 1000:
            inverse = 1_000_000 // thousandths  # floor(1000 / ratio) thousandths
            tables[f"{inverse / 1000:.3f}"] = tuple((w, h) for h, w in grids)
    return tables


RATIOS: Mapping[str, tuple[Grid, ...]] = MappingProxyType(_tables())
"""The 1M schedule of every aspect ratio (height / width), by the ratio with three digits."""


@dataclass(frozen=True)
class Schedule:
    """Grids of one picture size.

    Attributes:
        name: "ratio/size" for those of the tables, "own" for a model's own.
        grids: of the transformer's tokens, first scale first.
        rope_grid: grid in which positions are measured: the ratio's last one at 1M.
        cell: latent cells per token and side; 2 where the model works on patches (spec §3.3).
        stride: pixels per latent cell and side.
    """

    name: str
    grids: tuple[Grid, ...]
    rope_grid: Grid
    cell: int
    stride: int

    @property
    def num_scales(self) -> int:
        return len(self.grids)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each scale."""
        return tuple(height * width for height, width in self.grids)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Tokens before each scale."""
        return (0, *accumulate(self.lengths[:-1]))

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)

    @property
    def latent_grids(self) -> tuple[Grid, ...]:
        """Grids of the autoencoder's cells."""
        return tuple((height * self.cell, width * self.cell) for height, width in self.grids)

    @property
    def latent_size(self) -> Grid:
        return self.latent_grids[-1]

    @property
    def num_cells(self) -> int:
        """Latent cells over all scales."""
        return self.num_tokens * self.cell**2

    @property
    def image_size(self) -> Grid:
        """Height and width in pixels."""
        height, width = self.latent_size
        return height * self.stride, width * self.stride


def table_schedule(ratio: str, size: Size, *, cell: int, stride: int) -> Schedule:
    """A schedule of the tables.

    Raises:
        InvalidRequestError: no such ratio or size.
    """
    if ratio not in RATIOS or size not in SIZES:
        raise InvalidRequestError(
            f"no schedule {ratio}/{size}: ratios are {', '.join(RATIOS)} (height / width), sizes "
            f"{', '.join(SIZES)}"
        )
    grids = RATIOS[ratio]
    return Schedule(f"{ratio}/{size}", grids[: _SCALES[size]], grids[-1], cell, stride)


def own_schedule(grids: Sequence[Grid], *, cell: int, stride: int) -> Schedule:
    """A schedule of a model's own; positions are measured in its last grid.

    Raises:
        InvalidRequestError: it does not start with one token, or shrinks.
    """
    listed = tuple(grids)
    grows = all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(listed))
    if not listed or listed[0] != (1, 1) or not grows:
        raise InvalidRequestError(
            f"found the grids {listed}, expected some that start with (1, 1) and never shrink: "
            "correct the model set's spec"
        )
    return Schedule(OWN, listed, listed[-1], cell, stride)


def nearest_ratio(height: int, width: int) -> str:
    """The ratio of the tables that is nearest to a picture's."""
    wanted = height / width
    return min(RATIOS, key=lambda ratio: abs(float(ratio) - wanted))
