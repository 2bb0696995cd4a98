"""What every GPU benchmark starts from: a set of random weights, its networks, and edits of it."""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.small import SMALL, SMALL_REGIONS, SMALL_SPEC
from benchmarks.gpu.weights import Variant, write_set
from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks, load_networks
from farm.backbones.precision import precision_for
from farm.calls import Answer, Call, Executor
from farm.images import encode_png
from farm.model_spec import RegionSpec
from farm.requests import parse_request
from farm.results import EditResult
from farm.runner import PreparedEdit, prepare, run_edit
from farm.storage.local import LocalStore
from farm.zoo.model_sets import ModelSet, has_manifest, open_model_set

WHOLE = "sd15+regions+infinity-2b"
"""All four backbones."""


@dataclass(frozen=True)
class Setting:
    """How benchmarks run.

    Attributes:
        tiny: small networks and schedules, to count and not to time.
        device: where.
        cache: where sets of random weights are kept, so that they are written once.
        out: where reports go; None: nowhere.
        deadline: by the monotonic clock.
        base: the set that is written; the others are parts of it.
        variant: of its weights.
    """

    tiny: bool
    device: str
    cache: Path
    out: Path | None = None
    deadline: float | None = None
    base: str = WHOLE
    variant: Variant = "fp16"

    def report(self, name: str) -> Report:
        return Report(name, self.out, self.deadline)

    def model_set(self, name: str = WHOLE) -> ModelSet:
        """A set of random weights: the base, or as much of it as the name says.

        The base is written if it is not there.
        """
        folder = self.cache / f"{self.base}-{self.variant}{'-tiny' if self.tiny else ''}"
        if not has_manifest(folder):
            if self.tiny:
                write_small_set(self.base, folder, self.variant)
            else:
                write_set(self.base, folder, self.variant, device=self.device)
        models = open_model_set(str(folder))
        asked = {addition.split("-")[0] for addition in name.split("+")[1:]}
        parts = () if name == self.base else ("regions", "infinity")
        less = dict.fromkeys(part for part in parts if part not in asked)
        spec = models.spec.model_copy(update=less)
        return replace(models, manifest=models.manifest.model_copy(update={"spec": spec}))

    def networks(self, models: ModelSet, precision: str = "auto") -> Networks:
        """Loaded, for as long as the caller keeps them."""
        asked = precision_for(self.device, precision)
        return load_networks(models.folder, models.spec, self.device, precision=asked)


def write_small_set(name: str, folder: Path, variant: Variant = "fp16") -> None:
    """A whole set of small networks in the real formats."""
    changes: dict[str, Any] = dict(SMALL_SPEC)
    if "regions" in name or name == "sd2-inpainting":
        fields = {**SMALL_REGIONS, "inpainting_prediction": "epsilon"}
        changes["regions"] = RegionSpec.model_validate(fields)
    write_set(
        name,
        folder,
        variant,
        architectures=SMALL,
        spec_changes=changes,
        defaults="scenes",
        size="0.06M",
    )


def picture(size: int, seed: int = 0) -> bytes:
    """A smooth random picture as a PNG."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 3, 8, 8, generator=generator)
    image = torch.nn.functional.interpolate(rough, (size, size), mode="bicubic")
    return encode_png(image[0].clamp(0, 1))


def edit_of(
    models: ModelSet,
    method: str,
    parameters: Mapping[str, Any],
    *,
    seed: int = 0,
    size: int | None = None,
    word: str | None = "cat",
) -> PreparedEdit:
    """A checked edit of a picture of its own."""
    fields = {
        "method": method,
        "image": "picture.png",
        "source_prompt": "a red cat on the grass",
        "target_prompt": "a blue cat on the grass",
        "model_set": str(models.folder),
        "seed": seed,
        "parameters": dict(parameters),
    }
    if word is not None:
        fields["target_word"] = word
    return prepare(parse_request(fields), picture(size or models.spec.image_size, seed), models)


def run_alone(prepared: PreparedEdit, executor: Executor) -> tuple[EditResult, float]:
    """An edit into an empty store, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = run_edit(prepared, LocalStore(Path(folder)), executor)
        return result, time.perf_counter() - start


class Timed:
    """An executor that knows how long the calls of each operation took, in order."""

    def __init__(self, host: OperationHost) -> None:
        self._host = host
        self.seconds: dict[str, list[float]] = {}

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        answers = self._host.run_all(calls)
        for call, answer in zip(calls, answers, strict=True):
            self.seconds.setdefault(call.op, []).append(answer.seconds)
        return answers


def main(run: Callable[[Setting], Report]) -> None:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, help="Folder for the report.")
    parser.add_argument("--tiny", action="store_true", help="Small sizes, counts alone.")
    parser.add_argument("--cache", type=Path, help="Folder that keeps random weights.")
    parser.add_argument("--minutes", type=float, help="Leave out what does not fit into these.")
    given = parser.parse_args()
    with ExitStack() as stack:
        cache = given.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run(setting_of(tiny=given.tiny, cache=cache, out=given.json, minutes=given.minutes))


def setting_of(
    *,
    tiny: bool,
    cache: Path,
    out: Path | None = None,
    minutes: float | None = None,
    base: str = WHOLE,
    variant: Variant = "fp16",
) -> Setting:
    """A setting for the device that is there."""
    device = "cuda" if torch.cuda.is_available() and not tiny else "cpu"
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    return Setting(tiny, device, cache, out, deadline, base, variant)
