"""PIE-Bench as it is published: a folder with `mapping_file.json` and `annotation_images/`.

The file maps each id to `image_path`, `original_prompt` and `editing_prompt` (with square brackets
around what changes), `editing_instruction`, `editing_type_id`, `blended_word` and `mask` (runs over
the rows of a 512 x 512 picture). Masks are for evaluation alone; no request carries one.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from farm.errors import InvalidManifestError, InvalidRequestError
from farm.metrics.pie_columns import column_of, mean_of_known
from farm.metrics.pie_masks import SIDE, Convention, decode_runs
from farm.requests import parse_request
from jobs.importers.options import ImportOptions
from jobs.manifests import BrokenLine, Line, ManifestLine

MAPPING_FILE = "mapping_file.json"
IMAGES = "annotation_images"
_STYLE_DIFFUSION = "style_diffusion"
_EDIT_INFINITY = "edit_infinity"
CATEGORIES: Mapping[str, str] = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change colour",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}
"""Names of the ten types of edit by `editing_type_id`."""


@dataclass(frozen=True)
class PieCase:
    """One edit of the benchmark.

    Attributes:
        number: 1 for the first entry of the file.
        name: its id.
        image: path of the picture relative to the folder.
        source_prompt: without brackets.
        target_prompt: without brackets.
        instruction: the edit as a command.
        category: key of `CATEGORIES`.
        blended: the word of the source and the word of the target that a blend follows, or None.
        runs: of the mask, start and length by turns.
    """

    number: int
    name: str
    image: str
    source_prompt: str
    target_prompt: str
    instruction: str
    category: str
    blended: tuple[str, str] | None
    runs: tuple[int, ...]

    def mask(
        self, *, side: int = SIDE, convention: Convention = "released"
    ) -> Float[Tensor, "1 {side} {side}"]:
        """1 where the picture is to be edited; "released" forces the border to 1 (spec §8.2)."""
        return decode_runs(self.runs, height=side, width=side, border=convention == "released")


def read_pie(path: Path, options: ImportOptions) -> Iterator[Line]:
    """The benchmark as requests of the job's method; see `read_cases`."""
    for case in read_cases(path):
        if isinstance(case, BrokenLine):
            yield case
            continue
        fields: dict[str, Any] = {**request_fields(case), "model_set": options.model_set}
        fields["parameters"] = {**options.parameters, **fields["parameters"]}
        try:
            request = parse_request(fields)
        except InvalidRequestError as error:
            broken = InvalidManifestError(f"{_place(case.name)}: {error.message}")
            yield BrokenLine(case.number, case.name, broken)
            continue
        yield ManifestLine(case.number, case.name, request, None, _place(case.name))


def request_fields(case: PieCase, method: str = _STYLE_DIFFUSION) -> dict[str, Any]:
    """Fields of a request for an edit of the benchmark, without model set.

    StyleDiffusion's blend follows the blended words and is off where the benchmark names none;
    other methods get prompts and picture alone, EditInfinity the source's blended word too.
    """
    parameters: dict[str, Any] = {}
    words: dict[str, Any] = {}
    if method == _EDIT_INFINITY and case.blended is not None:
        words["target_word"] = case.blended[0]
    if method == _STYLE_DIFFUSION:
        parameters["local_blend"] = case.blended is not None
        if case.blended is not None:
            source, target = case.blended
            parameters |= {"source_words": [source], "target_words": [target]}
    return {
        "id": case.name,
        "method": method,
        "image": case.image,
        "source_prompt": case.source_prompt,
        "target_prompt": case.target_prompt,
        **words,
        "parameters": parameters,
    }


def read_cases(path: Path) -> Iterator[PieCase | BrokenLine]:
    """All entries of a mapping file, in its order; a wrong entry says why and harms no other.

    Args:
        path: the benchmark's folder, or the mapping file in it.

    Raises:
        InvalidManifestError: the file cannot be read, or is no JSON object.
    """
    file = path / MAPPING_FILE if path.is_dir() else path
    for number, (name, entry) in enumerate(_entries(file).items(), start=1):
        try:
            yield _case(number, name, entry)
        except InvalidManifestError as error:
            yield BrokenLine(number, name, error)


def _entries(file: Path) -> dict[str, Any]:
    try:
        entries: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise InvalidManifestError(
            f"cannot read {file}: {error.strerror}; name the benchmark's folder, which holds "
            f"{MAPPING_FILE}"
        ) from error
    except ValueError as error:
        raise InvalidManifestError(f"{file} is not JSON ({error}); fetch it again") from error
    if not isinstance(entries, dict):
        raise InvalidManifestError(f"{file}: one JSON object by id is expected")
    return entries


def _case(number: int, name: str, entry: Any) -> PieCase:
    if not isinstance(entry, dict):
        raise _wrong(name, "", entry, "an object with image_path, prompts and mask")
    category = _text(name, entry, "editing_type_id")
    if category not in CATEGORIES:
        raise _wrong(name, "editing_type_id", category, 'a type from "0" to "9"')
    case = PieCase(
        number=number,
        name=name,
        image=f"{IMAGES}/{_text(name, entry, 'image_path')}",
        source_prompt=without_brackets(_text(name, entry, "original_prompt")),
        target_prompt=without_brackets(_text(name, entry, "editing_prompt")),
        instruction=_text(name, entry, "editing_instruction", required=False),
        category=category,
        blended=_blended(name, _text(name, entry, "blended_word", required=False)),
        runs=_runs(name, entry.get("mask")),
    )
    try:
        case.mask()
    except InvalidRequestError as error:
        raise InvalidManifestError(f"{_place(name)}, mask: {error.message}") from error
    return case


def without_brackets(prompt: str) -> str:
    """A prompt as networks are given it: the benchmark marks what changes with [ ]."""
    return " ".join(prompt.replace("[", "").replace("]", "").split())


def _text(name: str, entry: dict[str, Any], field: str, *, required: bool = True) -> str:
    value = entry.get(field)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value.strip()):
        raise _wrong(name, field, value, "text")
    return value.strip()


def _blended(name: str, text: str) -> tuple[str, str] | None:
    words = text.split()
    if not words:
        return None
    if len(words) != 2:
        raise _wrong(name, "blended_word", text, "a word of each prompt, or nothing")
    return words[0], words[1]


def _runs(name: str, value: Any) -> tuple[int, ...]:
    runs = value if isinstance(value, list) else None
    if runs is None or not all(isinstance(n, int) and not isinstance(n, bool) for n in runs):
        raise _wrong(name, "mask", value, "a list of starts and lengths")
    return tuple(runs)


def _wrong(name: str, field: str, found: Any, expected: str) -> InvalidManifestError:
    place = f"{_place(name)}, {field}" if field else _place(name)
    shown = "nothing" if found is None else f"{found!r:.80}"
    return InvalidManifestError(f"{place}: found {shown}, expected {expected}")


def _place(name: str) -> str:
    return f"entry {name!r}"


def category_means(
    figures: Iterable[tuple[str, Mapping[str, float]]],
) -> dict[str, dict[str, float]]:
    """Mean of each figure by category, then over "all" edits; nan counts nowhere.

    Args:
        figures: category (key of `CATEGORIES`) and figures by name, for each edit.
    """
    groups: dict[str, list[Mapping[str, float]]] = {}
    for category, values in figures:
        groups.setdefault(category, []).append(values)
    groups = {key: groups[key] for key in sorted(groups)}
    groups["all"] = [values for group in list(groups.values()) for values in group]
    return {key: _means(group) for key, group in groups.items()}


def _means(group: list[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for values in group for name in values)
    means = {name: mean_of_known(v[name] for v in group if name in v) for name in names}
    return {"edits": float(len(group)), **means}


def category_table(means: Mapping[str, Mapping[str, float]]) -> Table:
    """`category_means` as published tables show them: scaled, and each network under its name."""
    names = [name for name in means["all"] if name != "edits"]
    table = Table("category", "edits", *(_title(name) for name in names), box=None)
    for key, values in means.items():
        cells = (_shown(name, values.get(name, math.nan)) for name in names)
        label = "all" if key == "all" else f"{key} {CATEGORIES[key]}"
        table.add_row(label, f"{values['edits']:.0f}", *cells)
    return table


def _title(name: str) -> str:
    plain, _, network = name.partition("[")
    column = column_of(name)
    title = column.title if column else plain
    return f"{title}\n{network.removesuffix(']')}" if network else title


def _shown(name: str, value: float) -> str:
    column = column_of(name)
    return "-" if math.isnan(value) else f"{value * (column.scale if column else 1):.2f}"
