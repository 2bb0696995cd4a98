"""Scene edits as a user would state them: picture bytes, two prompts and a word; no truth."""

from pathlib import Path
from typing import Any

from farm.images import encode_png
from farm.requests import EditRequest, parse_request
from farm.zoo.scenes.edits import EditTruth, SceneEdit


def edit_name(edit: SceneEdit, number: int) -> str:
    """A short name that says what is edited."""
    return f"{number:03d}-{edit.type}-{edit.target_word}"


def request_fields(
    edit: SceneEdit, name: str, image: str, method: str = "style_diffusion"
) -> dict[str, Any]:
    """What a method may know of an edit; EditInfinity is told the word that is replaced."""
    return {
        "id": name,
        "method": method,
        "image": image,
        "source_prompt": edit.source_prompt,
        "target_prompt": edit.target_prompt,
        "target_word": edit.source_word if method == "edit_infinity" else edit.target_word,
    }


def edit_request(
    edit: SceneEdit,
    name: str,
    *,
    model_set: str,
    parameters: dict[str, Any],
    method: str = "style_diffusion",
) -> EditRequest:
    """The request; its picture is handed over as bytes, so `image` is a name alone.

    Raises:
        InvalidRequestError: there is no such method or parameter, or one is out of range.
    """
    fields = request_fields(edit, name, f"{name}.png", method)
    return parse_request({**fields, "model_set": model_set, "parameters": parameters})


def write_pictures(truth: EditTruth, name: str, folder: Path) -> tuple[str, str]:
    """Source and true target as PNG files in a folder; their names."""
    names = (f"{name}.png", f"{name}.truth.png")
    for file, rendering in zip(names, (truth.source, truth.target), strict=True):
        (folder / file).write_bytes(encode_png(rendering.images[0]))
    return names
