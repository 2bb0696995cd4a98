"""Training curves: JSON lines beside the checkpoint, written by the loop."""

import json
from pathlib import Path

from farm.errors import InvalidRequestError

Point = dict[str, float | int]
"""`step`, `loss` and the recipe's figures, means since the previous point; evaluations as they
are, under `heldout/…`."""


class Curve:
    """A file that grows by a line every so many steps.

    Args:
        path: of the file; lines beyond `step` (from before a resumed checkpoint) are dropped.
        step: where training goes on.
        every: steps between two lines.
    """

    def __init__(self, path: Path, *, step: int, every: int) -> None:
        self._path, self._every = path, every
        self._sums: dict[str, float] = {}
        self._number = 0
        kept = [p for p in read_curve(path) if p["step"] <= step] if path.is_file() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(p)}\n" for p in kept), encoding="utf-8")

    def add(
        self, step: int, figures: dict[str, float], evaluation: dict[str, float] | None
    ) -> None:
        """Count one step's figures; writes where a line is due."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._number += 1
        if evaluation is None and step % self._every != 0:
            return
        point: Point = {"step": step}
        point |= {name: value / self._number for name, value in self._sums.items()}
        point |= {f"heldout/{name}": value for name, value in (evaluation or {}).items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(point)}\n")
        self._sums, self._number = {}, 0


def read_curve(path: Path) -> list[Point]:
    """All points of a curve.

    Raises:
        InvalidRequestError: there is no such file, or a line of it is none.
    """
    if not path.is_file():
        raise InvalidRequestError(
            f"no curve {path}: give a `<part>.curve.jsonl` that `editfarm zoo train` wrote"
        )
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise InvalidRequestError(
            f"{path} holds a line that is no JSON ({error}): remove it"
        ) from error
