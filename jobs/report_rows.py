"""From finished edits and what lies in the store to the rows of the report."""

import base64
import difflib
import json
from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

from farm.images import decode_image, encode_png, thumbnail_data_uri
from farm.metrics.psnr import psnr
from farm.results import Provenance
from jobs.outcomes import DoneEdit
from jobs.report_page import Fact, Picture, ReportRow, Timing, Word

_PIXELATED_UP_TO = 128
"""Pixels a side; such pictures are embedded as they are and enlarged without smoothing."""
_LARGEST = 480
_OUTPUTS = {
    "mask": "mask.png",
    "attention": "attention.png",
    "boxes": "boxes.png",
    "training loss": "loss.png",
}
_METRICS = "metrics.json"
_CHOICE = "result.json"
_SPELLINGS = {"psnr": "PSNR", "unet": "UNet", "vae": "VAE", "iou": "IoU"}

Image = Float[Tensor, "3 height width"]

Load = Callable[[str], bytes]
"""Bytes of a file by name: "input", "truth", or one of the edit's outputs."""


def build_row(outcome: DoneEdit, load: Load) -> ReportRow:
    """The row of one finished edit.

    Raises:
        StoreError: a file of the edit cannot be read.
        CorruptArtifactError: it is not what was committed.
    """
    result = outcome.result
    provenance = result.provenance
    images = {"before": _image(load("input")), "after": _image(load("edited.png"))}
    if outcome.truth is not None:
        images["true edit"] = _image(load("truth"))
    images |= {
        label: _image(load(file)) for label, file in _OUTPUTS.items() if file in result.files
    }
    metrics = json.loads(load(_METRICS)) if _METRICS in result.files else {}
    request = outcome.request
    assert request is not None  # only a request can be done
    source, target = changed_words(request.source_prompt, request.target_prompt)
    return ReportRow(
        name=outcome.name,
        edit_id=result.edit_id,
        tags=_tags(outcome),
        source=source,
        target=target,
        pictures=tuple(_picture(label, image) for label, image in images.items()),
        figures=(
            *choice_facts(load, result.files),
            *_truth_figures(images),
            *_metric_figures(metrics),
        ),
        timings=_timings(provenance),
        work=tuple(Fact(_spaced(name), f"{n:,}") for name, n in sorted(provenance.work.items())),
    )


def build_row_without_pictures(outcome: DoneEdit) -> ReportRow:
    """The row of an edit that was deleted after its job had finished it."""
    request = outcome.request
    assert request is not None  # only a request can be done
    source, target = changed_words(request.source_prompt, request.target_prompt)
    provenance = outcome.result.provenance
    return ReportRow(
        name=outcome.name,
        edit_id=outcome.result.edit_id,
        tags=(*_tags(outcome), "deleted since"),
        source=source,
        target=target,
        pictures=(),
        figures=(),
        timings=_timings(provenance),
        work=tuple(Fact(_spaced(name), f"{n:,}") for name, n in sorted(provenance.work.items())),
    )


def changed_words(source: str, target: str) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """The words of two prompts, each marked where the other prompt has not the same there."""
    words = source.split(), target.split()
    matcher = difflib.SequenceMatcher(None, *words, autojunk=False)
    same = matcher.get_matching_blocks()
    kept = (
        {block.a + offset for block in same for offset in range(block.size)},
        {block.b + offset for block in same for offset in range(block.size)},
    )
    before, after = (
        tuple(Word(text, index not in unchanged) for index, text in enumerate(prompt))
        for prompt, unchanged in zip(words, kept, strict=True)
    )
    return before, after


def seconds_text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60} min {seconds % 60:.0f} s"


def _image(data: bytes) -> Image:
    return decode_image(data).image


def _picture(label: str, image: Image) -> Picture:
    if max(image.shape[-2:]) > _PIXELATED_UP_TO:
        return Picture(label, thumbnail_data_uri(image, _LARGEST), pixelated=False)
    encoded = base64.b64encode(encode_png(image)).decode("ascii")
    return Picture(label, f"data:image/png;base64,{encoded}", pixelated=True)


def _tags(outcome: DoneEdit) -> tuple[str, ...]:
    provenance = outcome.result.provenance
    tags = [provenance.method.replace("_", " "), f"seed {provenance.seed}"]
    if outcome.result.reused:
        tags.append("was in the store")
    elif provenance.stage_reused:
        tags.append("inversion reused")
    if outcome.tries > 1:
        tags.append(f"{outcome.tries} tries")
    return tuple(tags)


def choice_facts(load: Load, files: Mapping[str, str]) -> tuple[Fact, ...]:
    """Of an edit that chose its method: which, why, and what else was tried."""
    if _CHOICE not in files:
        return ()
    told = json.loads(load(_CHOICE))
    why = [Fact("because", reason) for reason in told["reasons"]]
    refused = [Fact(f"not {name}", reason) for name, reason in told["refused"].items()]
    return (Fact("chosen", _spaced(told["chosen"])), *why, *refused)


def _truth_figures(images: Mapping[str, Image]) -> tuple[Fact, ...]:
    """How near the true edit we came, and how near the unedited picture was."""
    truth, before, after = images.get("true edit"), images["before"], images["after"]
    if truth is None or not truth.shape == before.shape == after.shape:
        return ()
    near = psnr(after[None], truth[None]).item()
    was = psnr(before[None], truth[None]).item()
    return (
        Fact("PSNR to the true edit", f"{near:.1f} dB"),
        Fact("of the unedited picture", f"{was:.1f} dB"),
    )


def _metric_figures(metrics: Mapping[str, object]) -> tuple[Fact, ...]:
    return tuple(
        Fact(_spaced(name), f"{value:.4g}{' dB' * name.endswith('psnr')}")
        for name, value in metrics.items()
        if isinstance(value, int | float)
    )


def _timings(provenance: Provenance) -> tuple[Timing, ...]:
    whole = max(provenance.seconds, 1e-9)
    stages = [(_spaced(name), seconds) for name, seconds in provenance.stage_seconds.items()]
    rows = [*stages, ("whole edit", provenance.seconds)]
    return tuple(
        Timing(name, seconds_text(seconds), min(100, round(100 * seconds / whole)))
        for name, seconds in rows
    )


def _spaced(name: str) -> str:
    text = name.replace("_", " ")
    for plain, proper in _SPELLINGS.items():
        text = text.replace(plain, proper)
    return text
