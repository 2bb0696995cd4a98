"""What an edit gave, as a notebook shows it."""

import json
import sys
import tempfile
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from farm.errors import InvalidRequestError
from farm.notebook.page import Panel, render_page
from farm.notebook.pictures import to_pillow
from farm.notebook.places import Finished, Task
from farm.results import Provenance

_OUTPUTS = {"mask": "mask.png", "attention": "attention.png", "boxes": "boxes.png"}
_METRICS = "metrics.json"


@dataclass(frozen=True, eq=False)
class Edited:
    """A finished edit; its pictures are Pillow's, and its files are fetched when looked at.

    In a notebook the last expression of a cell shows it.
    """

    task: Task
    finished: Finished

    @property
    def edit_id(self) -> str:
        """Digest of everything that determines the result."""
        return self.finished.edit_id

    @property
    def provenance(self) -> Provenance:
        """Seed, configuration, versions, weights, work and times."""
        return self.finished.provenance

    @property
    def reused(self) -> bool:
        """Whether the whole edit had been done before."""
        return self.finished.reused

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all outputs; `read` gives their bytes."""
        return self.finished.names

    @cached_property
    def before(self) -> Image.Image:
        """The picture as it was handed in."""
        return to_pillow(self.task.picture)

    @cached_property
    def edited(self) -> Image.Image:
        """The picture as it is now, at the original's size."""
        return self._picture("edited.png")

    @cached_property
    def mask(self) -> Image.Image | None:
        """Where the method edited: white; None where it makes no mask."""
        return self._picture_if_there("mask")

    @cached_property
    def attention(self) -> Image.Image | None:
        """Where the words that change are looked at; None where the method shows none."""
        return self._picture_if_there("attention")

    @cached_property
    def figures(self) -> Mapping[str, float]:
        """Plain numbers about this edit, by name."""
        if _METRICS not in self.files:
            return {}
        found = json.loads(self.read(_METRICS))
        return {name: value for name, value in found.items() if isinstance(value, int | float)}

    def read(self, name: str) -> bytes:
        """Bytes of an output.

        Raises:
            InvalidRequestError: there is none of this name.
            StoreError: it cannot be read.
        """
        if name not in self.files:
            raise InvalidRequestError(
                f"the edit has no output {name!r}; it has {', '.join(self.files)}"
            )
        return self.finished.load(name)

    def save(self, folder: str | Path) -> list[Path]:
        """Write all outputs into a folder, which is made if it is not there.

        Raises:
            InvalidRequestError: it cannot be written.
        """
        paths = [Path(folder) / name for name in self.files]
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for path in paths:
                path.write_bytes(self.read(path.name))
        except OSError as error:
            raise InvalidRequestError(f"cannot write into {folder}: {error.strerror}") from error
        return paths

    def panels(self) -> list[Panel]:
        """Before, after, and what else there is to see."""
        shown = [Panel("before", self.before), Panel("after", self.edited)]
        found = {label: self._picture_if_there(label) for label in _OUTPUTS}
        return shown + [Panel(label, picture) for label, picture in found.items() if picture]

    def show(self) -> None:
        """Show it: in the cell of a notebook, else as a page in the browser."""
        display = notebook_display()
        if display is not None:
            display(self)
            return
        with tempfile.NamedTemporaryFile(
            "w", prefix="editfarm-", suffix=".html", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"<!doctype html><meta charset=utf-8>{self._repr_html_()}")
        webbrowser.open(Path(file.name).as_uri())

    def __repr__(self) -> str:
        request = self.task.fields
        return (
            f"<Edited {self.edit_id[:8]} {request.get('source_prompt')!r} → "
            f"{request.get('target_prompt')!r}, {self.edited.width}×{self.edited.height}>"
        )

    def _repr_html_(self) -> str:
        request, made = self.task.fields, self.provenance
        facts = {
            "edit": self.edit_id,
            "method": f"{made.method}, seed {made.seed}, {made.model_set}",
            "time": f"{made.seconds:.1f} s" + (", was there before" if self.reused else ""),
            "inversion": "reused" if made.stage_reused else "made",
            **{name.replace("_", " "): f"{value:.4g}" for name, value in self.figures.items()},
        }
        prompts = str(request.get("source_prompt")), str(request.get("target_prompt"))
        return render_page(prompts, self.panels(), facts)

    def _picture(self, name: str) -> Image.Image:
        return to_pillow(self.read(name))

    def _picture_if_there(self, label: str) -> Image.Image | None:
        name = _OUTPUTS[label]
        return self._picture(name) if name in self.files else None


def notebook_display() -> Any:
    """IPython's `display` where a notebook runs us, else None; IPython is never imported."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or "IPKernelApp" not in getattr(shell, "config", {}):
        return None
    return sys.modules["IPython.display"].display
