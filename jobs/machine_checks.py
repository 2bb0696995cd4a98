"""The doctor's look at the machine: accelerators, disk, limits, ports."""

import re
import resource
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import cache_from_source
from pathlib import Path

import torch

from actors.sharing import Gpu
from cluster.fractions import needed_bytes, share_accelerators
from cluster.settings import DASHBOARD_PORT, GCS_PORT, METRICS_PORT, SERVE_PORT
from jobs.findings import Finding

_GIB = 2**30
_MIN_DISK = 10 * _GIB
"""Ray's logs and spilled objects of a day; it stops taking work when its disk is 95 % full."""
_MIN_FILES = 4096
_LONGEST_FOLDER = 60
"""Ray adds up to 47 characters to make a socket's path, which ends at 107."""
_CODE = re.compile(r"(?P<kind>sm|compute)_(?P<major>\d+)(?P<minor>\d)(?P<alone>[af]?)")
_PORTS: Mapping[int, str] = {
    GCS_PORT: "Ray's head",
    SERVE_PORT: "HTTP",
    DASHBOARD_PORT: "Ray's dashboard",
    METRICS_PORT: "metrics",
}


def graphics(gpus: Sequence[Gpu]) -> Finding:
    """Whether torch can use what the driver shows."""
    built = torch.version.cuda
    if not gpus:
        return Finding("accelerator", "ok", "none: backbones run on the CPU")
    shown = f"{len(gpus)} × {gpus[0].name}, driver {gpus[0].driver}"
    if built is None:
        advice = "this torch is built for the CPU alone: install the default build"
        return Finding("accelerator", "fail", f"{shown}, torch without CUDA", advice)
    if not torch.cuda.is_available():
        advice = (
            f"torch {torch.__version__} needs a driver for CUDA {built}: update it, and in a "
            "container start with --gpus all"
        )
        return Finding("accelerator", "fail", f"{shown}, but torch sees none", advice)
    built_for = torch.cuda.get_arch_list()
    old = [
        torch.cuda.get_device_name(index)
        for index in range(torch.cuda.device_count())
        if not any(_runs(code, torch.cuda.get_device_capability(index)) for code in built_for)
    ]
    if old:
        advice = "this torch has no code for it: take another torch, or hide the device"
        return Finding("accelerator", "warn", f"{shown}; not made for {', '.join(old)}", advice)
    return Finding("accelerator", "ok", f"{shown}, CUDA {built}")


def _runs(code: str, device: tuple[int, int]) -> bool:
    """Whether a device runs code that was compiled for an architecture, such as "sm_86".

    Machine code runs on later minors of its major version, PTX ("compute_86") is compiled for
    whatever came later. With a letter behind its number ("sm_90a") code is for that device alone.
    """
    match = _CODE.fullmatch(code)
    if match is None:
        return False
    made_for = int(match["major"]), int(match["minor"])
    if match["alone"]:
        return made_for == device
    if match["kind"] == "compute":
        return made_for <= device
    return made_for[0] == device[0] and made_for[1] <= device[1]


def bytecode(module: Path, *, is_kept: bool) -> Finding:
    """Whether processes find packages compiled, or each compiles them for itself.

    Args:
        module: a file of a large package.
        is_kept: whether what is compiled is kept beside it (not `PYTHONDONTWRITEBYTECODE`).
    """
    if Path(cache_from_source(str(module))).is_file():
        return Finding("bytecode", "ok", "packages are compiled")
    if is_kept:
        return Finding("bytecode", "ok", "packages are compiled when they are first used")
    advice = "every process of Ray compiles them anew, some 15 s for a backbone: unset it"
    found = "packages are not compiled, and PYTHONDONTWRITEBYTECODE is set"
    return Finding("bytecode", "warn", found, advice)


def sharing(weights: Mapping[str, int], memories: Sequence[int], what: str) -> Finding:
    """Where backbones of these sizes would go.

    Args:
        weights: bytes of weights by model set.
        memories: bytes of each device, or of the machine.
        what: "GPU" or "the CPU's memory".
    """
    found = share_accelerators(weights, memories)
    places = ", ".join(
        f"{placed.name} on {what} {placed.accelerator if len(memories) > 1 else ''}".rstrip()
        + (f" ({placed.share:.0%})" if placed.share < 1 else "")
        for placed in found.placed
    )
    if found.left_out:
        needs = ", ".join(
            f"{name} needs {needed_bytes(weights[name]) / _GIB:.1f} GiB" for name in found.left_out
        )
        advice = "use fewer model sets at once, or a larger device: they take turns otherwise"
        return Finding("placement", "warn", f"{places or 'none'}; no room: {needs}", advice)
    return Finding("placement", "ok", places)


def disk(folder: Path) -> Finding:
    """Room for Ray's session, logs and spilled objects."""
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / _GIB:.1f} GiB free in {folder}"
    if usage.free < 0.06 * usage.total:
        return Finding("disk", "fail", found, "Ray takes no work on a disk 95 % full: free some")
    if usage.free < _MIN_DISK:
        return Finding("disk", "warn", found, "logs and spilled objects may fill it: free some")
    return Finding("disk", "ok", found)


def session_folder(environment: Mapping[str, str]) -> Path:
    """Where a Ray of our own puts its session."""
    return Path(environment.get("RAY_TMPDIR") or tempfile.gettempdir())


def session_path(folder: Path) -> Finding:
    """Whether Ray's sockets fit into a path."""
    if len(str(folder)) > _LONGEST_FOLDER:
        advice = f"set RAY_TMPDIR to a folder of at most {_LONGEST_FOLDER} characters"
        return Finding("session folder", "fail", str(folder), advice)
    if not folder.is_dir():
        return Finding("session folder", "fail", f"{folder} is no folder", "set RAY_TMPDIR anew")
    return Finding("session folder", "ok", str(folder))


def open_files() -> Finding:
    """Ray holds some sockets for each worker and each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft:,} open files, at most {hard:,}"
    if soft < _MIN_FILES:
        return Finding("limits", "warn", found, "run `ulimit -n 65536` before a large job")
    return Finding("limits", "ok", found)


def ports(wanted: Mapping[int, str] = _PORTS) -> Finding:
    """Ports that a head of a cluster would take; a Ray of our own chooses free ones."""
    taken = [f"{port} ({use})" for port, use in wanted.items() if not _is_free(port)]
    if taken:
        advice = "fine for a Ray of our own; a head or a server here needs other ports"
        return Finding("ports", "warn", f"taken: {', '.join(taken)}", advice)
    return Finding("ports", "ok", f"{', '.join(map(str, wanted))} are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
