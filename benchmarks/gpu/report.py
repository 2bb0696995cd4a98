"""What a benchmark found: flat figures in a JSON file that is whole after every figure."""

import json
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "A100": 312.0}
"""Dense bfloat16 of the tensor cores, by a part of the card's name (the makers' data sheets)."""


@dataclass
class Report:
    """Figures of one benchmark.

    Attributes:
        name: of the benchmark.
        folder: where its JSON file is kept; None: nowhere.
        deadline: when to leave out what is left, by the monotonic clock; None: never.
        figures: flat.
        counts: of work, which hold on any machine.
        skipped: what was left out, with the reason.
    """

    name: str
    folder: Path | None = None
    deadline: float | None = None
    figures: dict[str, float] = field(default_factory=dict[str, float])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    skipped: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, **figures: float) -> None:
        """Keep figures, in the file too."""
        self.figures |= {name: round(value, 6) for name, value in figures.items()}
        self._write()

    def count(self, **counts: int) -> None:
        """Keep counts of work."""
        self.counts |= counts
        self._write()

    def skip(self, what: str, why: str) -> None:
        """Say what was left out."""
        self.skipped[what] = why
        self._write()

    def has_time_for(self, what: str, seconds: float) -> bool:
        """Whether something that takes so long still fits; what does not is said to be skipped."""
        left = self.seconds_left
        if left is None or left > seconds:
            return True
        self.skip(what, f"{max(0, left):.0f} s were left, and it takes about {seconds:.0f} s")
        return False

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def to_dict(self) -> dict[str, Any]:
        """All of it, with the machine."""
        return {
            "benchmark": self.name,
            "figures": self.figures,
            "counts": self.counts,
            "skipped": self.skipped,
            "machine": machine(),
        }

    def _write(self) -> None:
        line = json.dumps({"benchmark": self.name, **self.figures})
        sys.stderr.write(f"{line[:400]}\n")
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{self.name}.json.part"
        part.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        part.replace(self.folder / f"{self.name}.json")


def machine() -> dict[str, Any]:
    """What figures depend on."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": "cpu",
    }
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        found |= {
            "device": about.name,
            "memory_gb": round(about.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
        }
    return found


def peak_flops() -> float | None:
    """Floating-point operations a second that the card could do; None where that is unknown."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name(0)
    return next((1e12 * value for part, value in PEAK_TFLOPS.items() if part in name), None)
