"""A golden set that knows which of its arrays have been compared with something."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

_COMMENTS = ("note", "seed_note")
"""Entries that say something to readers."""


class Consumed:
    """What was read of a set, by names such as `ddim.latents`, `edits.2` or `image`.

    Arrays are the tensors of safetensors files, the keys of JSON objects, the entries of JSON lists
    and pictures. A UNet's folder is one array: loading it is strict about its weights.
    """

    def __init__(self, golden: Path) -> None:
        self.golden = golden
        self.names: set[str] = set()

    def open(self, file: str) -> "Recorded":
        """Tensors or entries of a file by name; taking one marks it as read."""
        path = self.golden / file
        return Recorded(_values(path), self.names, file.removesuffix(path.suffix))

    def left(self) -> list[str]:
        """Every array of the set that nobody read."""
        return sorted(self._all() - self.names)

    def _all(self) -> set[str]:
        found: set[str] = set()
        for path in sorted(self.golden.rglob("*")):
            name = path.relative_to(self.golden).as_posix().removesuffix(path.suffix)
            if path.name == "unet":
                found.add(name)
            elif "unet" in path.parts or path.suffix in ("", ".md"):
                continue
            elif path.suffix in (".safetensors", ".json"):
                found |= {f"{name}.{key}" for key in _values(path) if key not in _COMMENTS}
            else:
                found.add(name)
        return found


class Recorded(Mapping[str, Any]):
    """The arrays of one file; half precision becomes single."""

    def __init__(self, values: Mapping[str, Any], names: set[str], stem: str) -> None:
        self._values, self._names, self._stem = values, names, stem

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self._names.add(f"{self._stem}.{name}")
        is_half = isinstance(value, torch.Tensor) and value.dtype == torch.float16
        return value.float() if is_half else value

    def __contains__(self, name: object) -> bool:
        return name in self._values  # asking is not reading

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _values(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    found = json.loads(path.read_text())
    return found if isinstance(found, dict) else {str(n): v for n, v in enumerate(found)}
