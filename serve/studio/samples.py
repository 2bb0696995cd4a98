"""Scenes to try the studio with, drawn when it starts."""

import base64
from dataclasses import dataclass
from functools import lru_cache

from farm.images import encode_png
from farm.zoo.scenes.edits import edit_truth, sample_edits

_SEED = 11
_COUNT = 8


@dataclass(frozen=True)
class Sample:
    """A picture with two descriptions."""

    picture: bytes
    source_prompt: str
    target_prompt: str
    target_word: str

    @property
    def data_url(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.picture).decode("ascii")


@lru_cache(maxsize=1)
def samples() -> tuple[Sample, ...]:
    """Held-out scenes whose colour or background is to change."""
    return tuple(
        Sample(
            encode_png(edit_truth(edit).source.images[0]),
            edit.source_prompt,
            edit.target_prompt,
            edit.target_word,
        )
        for edit in sample_edits(_COUNT, _SEED, ("colour", "background"))
    )
