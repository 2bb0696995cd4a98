"""An edit as HTML that refers to nothing outside itself."""

import base64
import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

_ENLARGED_UP_TO = 128
"""Pixels a side; such pictures are shown larger, without smoothing."""
_SHOWN = 256
_LARGEST = 1024
_FIGURE = "margin:0 12px 12px 0;display:inline-block;font:12px sans-serif"


@dataclass(frozen=True)
class Panel:
    """One picture and what it is."""

    label: str
    picture: Image.Image


def render_page(prompts: tuple[str, str], panels: Sequence[Panel], facts: Mapping[str, str]) -> str:
    """The prompts with what differs, the pictures side by side, the facts below."""
    source, target = _marked(*prompts)
    rows = "".join(
        f"<tr><td style='padding:0 16px 0 0'>{escape(name)}</td><td>{escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return (
        f"<div><p>{source} → {target}</p>{''.join(map(_figure, panels))}"
        f"<details><summary>figures</summary><table>{rows}</table></details></div>"
    )


def _marked(source: str, target: str) -> tuple[str, str]:
    """Both prompts, bold where the other has not the same words."""
    words = source.split(), target.split()
    blocks = difflib.SequenceMatcher(None, *words, autojunk=False).get_matching_blocks()
    kept = [set[int](), set[int]()]
    for block in blocks:
        kept[0] |= set(range(block.a, block.a + block.size))
        kept[1] |= set(range(block.b, block.b + block.size))
    first, second = (
        " ".join(
            escape(word) if index in same else f"<b>{escape(word)}</b>"
            for index, word in enumerate(prompt)
        )
        for prompt, same in zip(words, kept, strict=True)
    )
    return first, second


def _figure(panel: Panel) -> str:
    picture = panel.picture
    is_small = max(picture.size) <= _ENLARGED_UP_TO
    if max(picture.size) > _LARGEST:
        picture = picture.copy()
        picture.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    style = "image-rendering:pixelated" if is_small else ""
    return (
        f"<figure style='{_FIGURE}'><img width={_SHOWN} style='{style}' alt='{escape(panel.label)}'"
        f" src='data:image/png;base64,{data}'><figcaption>{escape(panel.label)}</figcaption>"
        "</figure>"
    )
