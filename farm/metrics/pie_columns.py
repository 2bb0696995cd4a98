"""Columns of a PIE-Bench table."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """How a table shows a figure.

    Attributes:
        title: without the network's name.
        scale: what published tables multiply by.
        higher_is_better: which way is good.
    """

    title: str
    scale: float
    higher_is_better: bool


COLUMNS: Mapping[str, Column] = {
    "structure_distance": Column("structure x1e3", 1e3, False),
    "psnr_unedited": Column("PSNR", 1.0, True),
    "distance_unedited": Column("LPIPS x1e3", 1e3, False),
    "mse_unedited": Column("MSE x1e4", 1e4, False),
    "ssim_unedited": Column("SSIM x1e2", 1e2, True),
    "clip_source": Column("CLIP source", 1.0, True),
    "clip_whole": Column("CLIP whole", 1.0, True),
    "clip_edited": Column("CLIP edited", 1.0, True),
}
"""Figures by name; those of a network carry its name: `clip_whole[clip-vit-large-patch14]`."""

FURTHER_COLUMNS: Mapping[str, Column] = {"image_reward": Column("ImageReward x10", 10.0, True)}
"""Figures that some tables have too."""


def column_of(name: str) -> Column | None:
    """The column of a figure, whose name may carry that of a network; None for others."""
    plain = name.partition("[")[0]
    return COLUMNS.get(plain) or FURTHER_COLUMNS.get(plain)


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of the values that are not nan, as the benchmark's tables are made; nan for none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
