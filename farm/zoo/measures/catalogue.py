"""All measurements by name, and the lines that the zoo is to reach."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

from farm.errors import InvalidRequestError
from farm.zoo.measures.autoencoding import measure_autoencoder
from farm.zoo.measures.bench import Bench, Figures
from farm.zoo.measures.clip_pairs import measure_clip
from farm.zoo.measures.inpainting import measure_inpainting
from farm.zoo.measures.judging import measure_judge
from farm.zoo.measures.next_scale import measure_bsq_vae, measure_infinity
from farm.zoo.measures.saliency import measure_saliency
from farm.zoo.measures.text_to_image import measure_text_to_image
from farm.zoo.measures.word_attention import measure_word_attention


@dataclass(frozen=True)
class Measure:
    """One measurement and the folders that it reads."""

    run: Callable[[Bench], Figures]
    needs: tuple[str, ...]


_UNGROUNDED = "unet-ungrounded"
MEASURES: Mapping[str, Measure] = {
    "vae": Measure(measure_autoencoder, ("vae",)),
    "clip": Measure(measure_clip, ("clip",)),
    "judge": Measure(measure_judge, ("judge", "vae")),
    "unet": Measure(measure_text_to_image, ("unet", "vae", "clip", "judge")),
    "attention": Measure(measure_word_attention, ("unet", "vae", "clip")),
    "inpainting": Measure(measure_inpainting, ("inpainting", "vae", "clip", "judge")),
    "dino": Measure(measure_saliency, ("dino",)),
    "caption_vit": Measure(partial(measure_saliency, part="caption_vit"), ("caption_vit",)),
    "bsq_vae": Measure(measure_bsq_vae, ("bsq_vae",)),
    "infinity": Measure(measure_infinity, ("infinity", "bsq_vae", "t5", "judge")),
    _UNGROUNDED: Measure(
        partial(measure_text_to_image, part=_UNGROUNDED), (_UNGROUNDED, "vae", "clip", "judge")
    ),
    "attention-ungrounded": Measure(
        partial(measure_word_attention, part=_UNGROUNDED), (_UNGROUNDED, "vae", "clip")
    ),
}


@dataclass(frozen=True)
class Line:
    """What a figure is to reach."""

    path: tuple[str, ...]
    """From the measurement's name to the figure's mean."""
    bound: float
    at_most: bool = False

    def is_met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


def _lines(start: tuple[str, ...], **bounds: float) -> list[Line]:
    return [Line((*start, name), bound) for name, bound in bounds.items()]


LINES: tuple[Line, ...] = (
    *_lines(("vae", "all"), psnr=30.0),
    *(
        line
        for source in ("rendered", "decoded")
        for line in _lines(
            ("judge", source, "all"), shape=0.97, colour=0.97, pattern=0.97, background=0.97
        )
    ),
    Line(("judge", "edits", "all", "unedited_success"), 0.05, at_most=True),
    *_lines(("unet", "one", "all"), background=0.95, colour=0.9, shape=0.85, pattern=0.8),
    *_lines(("unet", "two", "all"), colour=0.8, shape=0.7, both=0.85),
    *_lines(("infinity", "one", "all"), background=0.9, colour=0.85, shape=0.7),
    *_lines(("infinity", "attention", "all"), noun_pointing=0.9),
    *_lines(("attention", "all"), noun_pointing=0.9, noun_midpoint_iou=0.45),
    *_lines(("inpainting", "all"), appears=0.85),
    Line(("inpainting", "all", "seam_loss"), 1.0, at_most=True),
    Line(("inpainting", "all", "kept_seam_loss"), 1.0, at_most=True),
    *_lines(("clip", "retrieval", "all"), image_to_text=0.85, text_to_image=0.85),
    *(
        line
        for kind in ("colour", "shape", "pattern", "background")
        for line in _lines(("clip", f"prefers_{kind}", "all"), caption=0.95, picture=0.95)
    ),
    *_lines(("dino", "all"), midpoint_iou=0.4, pointing=0.85),
    *_lines(("caption_vit", "all"), midpoint_iou=0.4, pointing=0.85),
)


def find_measures(names: list[str], bench: Bench) -> dict[str, Measure]:
    """The named measurements; without names all whose networks are there.

    Raises:
        InvalidRequestError: a name is none, or what it reads is not there.
    """
    present = {n: m for n, m in MEASURES.items() if not _missing(m, bench)}
    for name in names:
        if name not in MEASURES:
            raise InvalidRequestError(f"no measurement {name!r}; there are {', '.join(MEASURES)}")
        if name not in present:
            missing = ", ".join(_missing(MEASURES[name], bench))
            raise InvalidRequestError(
                f"measuring {name} needs {missing} in {bench.networks}: train that, or give "
                "another folder with --networks"
            )
    return {name: present[name] for name in names} if names else present


def check_lines(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every line whose figure was measured: the figure, its mean, the line, whether it is met."""
    checked: list[dict[str, Any]] = []
    for line in LINES:
        if line.path[0] not in figures:
            continue
        found: Mapping[str, Any] = reduce(lambda at, key: at[key], line.path, figures)
        value: float = found["mean"]
        checked.append(
            {
                "figure": "/".join(line.path),
                "mean": value,
                "low": found["low"],
                "high": found["high"],
                "cases": found["cases"],
                "line": f"{'<=' if line.at_most else '>='} {line.bound:g}",
                "met": line.is_met(value),
            }
        )
    return checked


def _missing(measure: Measure, bench: Bench) -> list[str]:
    return [name for name in measure.needs if not (bench.networks / name).is_dir()]
