"""Several model sets on the same accelerators: each backbone takes the share that memory says."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.pools import has_pools
from cluster.fractions import needed_bytes, share_accelerators
from cluster.nodes import NODES, NodeTable
from cluster.table import TABLE, BackbonePlacement
from farm.backbones.loaded_sizes import loaded_sizes
from farm.errors import UnavailableError
from farm.zoo.model_sets import ModelSet

_GIB = 2**30
_SMI = (
    "nvidia-smi",
    "--query-gpu=name,driver_version,memory.total",
    "--format=csv,noheader,nounits",
)
_SMI_SECONDS = 20


@dataclass(frozen=True)
class Gpu:
    """A device as its driver describes it."""

    name: str
    driver: str
    memory_bytes: int


def driver_gpus(command: Sequence[str] = _SMI) -> list[Gpu]:
    """What NVIDIA's driver shows; nothing where there is no driver."""
    if shutil.which(command[0]) is None:
        return []
    try:
        shown = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, timeout=_SMI_SECONDS, check=True
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    gpus: list[Gpu] = []
    for line in shown.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and fields[2].isdigit():
            gpus.append(Gpu(fields[0], fields[1], int(fields[2]) * 2**20))
    return gpus


def weight_bytes(models: ModelSet) -> int:
    """Of all weight files of a model set.

    Raises:
        OSError: one of them is not there.
    """
    return sum((models.folder / name).stat().st_size for name in models.digests)


def loaded_bytes(models: ModelSet, device: str) -> int:
    """Of all networks of a model set once they are loaded.

    Raises:
        ModelSetError: a file is broken.
        InvalidRequestError: the environment asks for a precision that there is not.
    """
    return sum(loaded_sizes(models.folder, device).values())


def accelerator_memories(nodes: NodeTable = NODES) -> list[int]:
    """Bytes of the devices that backbones may have: this machine's, or one of the smallest kind."""
    if has_pools():
        kinds = [kind.accelerator for kind in nodes.workers if kind.accelerator is not None]
        return [min(kind.memory_gib for kind in kinds) * _GIB] if kinds else []
    return [gpu.memory_bytes for gpu in visible(driver_gpus())]


def visible(gpus: Sequence[Gpu]) -> Sequence[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves to this machine's Ray; the driver shows all."""
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return gpus
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if all(name.isdigit() for name in names):
        return [gpus[int(name)] for name in names if int(name) < len(gpus)]
    return gpus[: len(names)]  # by their ids, which the driver was not asked for


def shared_placement(
    own: str, weights: Mapping[str, int], memories: Sequence[int]
) -> BackbonePlacement:
    """The table's row for a GPU with the share of one model set among several.

    Ray gives the device in such shares, and the backbone's batches fill no more of its memory.

    Args:
        own: the model set's name.
        weights: bytes of weights, loaded, of all that share, by name.
        memories: bytes of each device.

    Raises:
        UnavailableError: it has no room beside the others.
    """
    for placed in share_accelerators(weights, memories).placed:
        if placed.name == own:
            return TABLE.backbone_on_gpu.model_copy(update={"num_gpus": placed.share})
    needs = ", ".join(
        f"{name} {needed_bytes(size) / _GIB:.1f}" for name, size in sorted(weights.items())
    )
    has = ", ".join(f"{memory / _GIB:.1f}" for memory in memories) or "none"
    raise UnavailableError(
        f"no room for {own}: the model sets need {needs} GiB, the devices have {has}: share them "
        "among fewer, or take larger ones"
    )
