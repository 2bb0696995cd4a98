"""Held-out edits of the scenes world as a manifest with its pictures."""

import json
from pathlib import Path

from farm.zoo.scenes.edits import edit_truth, parse_types, sample_edits
from farm.zoo.scenes.requests import edit_name, request_fields, write_pictures
from jobs.terminal import write_file


def write_scenes(folder: Path, *, edits: int, seed: int, types: str = "colour,background") -> Path:
    """Draw edits into a folder, which is made if it is not there; the same seed draws the same.

    Args:
        folder: where manifest and pictures go.
        edits: how many.
        seed: of the scenes.
        types: of edit, by commas.

    Returns:
        The manifest.

    Raises:
        InvalidRequestError: no such type, or the folder cannot be written.
    """
    lines: list[str] = []
    sampled = sample_edits(edits, seed, parse_types(types))
    manifest = folder / "manifest.jsonl"
    write_file(manifest, b"")
    for number, edit in enumerate(sampled, start=1):
        name = edit_name(edit, number)
        image, truth = write_pictures(edit_truth(edit), name, folder)
        lines.append(json.dumps({**request_fields(edit, name, image), "truth": truth}))
    write_file(manifest, "".join(f"{line}\n" for line in lines).encode())
    return manifest
