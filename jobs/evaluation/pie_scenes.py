"""Scenes in the form of PIE-Bench: a small folder that everybody may have."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from farm.images import encode_png
from farm.metrics.pie_masks import encode_runs
from farm.zoo.scenes.edits import EditTruth, SceneEdit, edit_truth
from farm.zoo.scenes.requests import edit_name
from farm.zoo.scenes.vocabulary import EditType
from jobs.importers.pie import CATEGORIES, IMAGES, MAPPING_FILE

_CATEGORY: Mapping[EditType, str] = {
    "shape": "1",
    "add": "2",
    "remove": "3",
    "colour": "6",
    "pattern": "7",
    "background": "8",
}
"""The benchmark's type of each type of edit; it has none like the others in scenes."""
_INSTRUCTION = {
    "add": "add a {new}",
    "remove": "remove the {old}",
    "background": "change the background from {old} to {new}",
}


def write_pie_scenes(folder: Path, edits: Iterable[SceneEdit]) -> None:
    """`mapping_file.json` and `annotation_images/` of edits, as the benchmark publishes them.

    The true region is the mask. Masks count the rows of pictures of the scenes' size, not of 512
    pixels.

    Raises:
        OSError: the folder cannot be written.
    """
    entries: dict[str, Any] = {}
    for number, edit in enumerate(edits, start=1):
        truth, key = edit_truth(edit), _CATEGORY[edit.type]
        path = f"{key}_{CATEGORIES[key].replace(' ', '_')}/{edit_name(edit, number)}.png"
        file = folder / IMAGES / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(truth.source.images[0]))
        entries[f"{number:012d}"] = _entry(edit, truth, key, path)
    (folder / MAPPING_FILE).write_text(json.dumps(entries, indent=1), encoding="utf-8")


def _entry(edit: SceneEdit, truth: EditTruth, category: str, path: str) -> dict[str, Any]:
    old, new = edit.source_word, edit.target_word
    # what is added or removed has a word in one prompt alone, so there is no pair to blend
    blended = "" if edit.type in ("add", "remove") else f"{old} {new}"
    form = _INSTRUCTION.get(edit.type, "change the {old} to {new}")
    return {
        "image_path": path,
        "original_prompt": edit.source_prompt,
        "editing_prompt": _marked(edit.target_prompt, new if edit.type != "remove" else ""),
        "editing_instruction": form.format(old=old, new=new),
        "editing_type_id": category,
        "blended_word": blended,
        "mask": encode_runs((truth.region > 0.5).float()[None]),
    }


def _marked(prompt: str, word: str) -> str:
    """The prompt with brackets around the word that is new, as the benchmark marks it."""
    return " ".join(f"[{one}]" if one == word else one for one in prompt.split())
