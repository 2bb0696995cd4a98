"""Check that this machine can run the farm: one line each, and what to do about it.

    editfarm doctor
    python -m jobs.doctor --store s3://bucket/edits --model-set /models/sd15 --json

Ends with exit code 3 when something fails. A warning is no failure, but for --strict, where it ends
with 1.
"""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated

import torch
import typer
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from actors.sharing import Gpu, driver_gpus, loaded_bytes, weight_bytes
from cluster.table import TABLE
from farm.errors import FarmError, UnavailableError
from farm.storage.opening import open_store
from farm.storage.store import check_writable
from farm.zoo.model_sets import open_model_set
from jobs.console import FarmCommand, JsonOption, command_app, print_json, print_table
from jobs.findings import Finding
from jobs.machine_checks import (
    bytecode,
    disk,
    graphics,
    open_files,
    ports,
    session_folder,
    session_path,
    sharing,
)

_GIB = 2**30
_MIN_MEMORY = 6 * _GIB
"""A driver, one backbone of the scenes set and eight trainers at 0.45 GB each: 5.1 GB measured."""
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}

app = command_app()


@app.command(cls=FarmCommand)
def doctor(
    store: Annotated[str, typer.Option(help="Store to try: path, file:// or s3://.")] = "out/store",
    model_set: Annotated[
        list[str] | None, typer.Option(help="Model set to check; may be given again. [scenes]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A warning is a failure too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that this machine can run the farm."""
    findings = list(examine(store, model_set or ["scenes"], os.environ))
    if as_json:
        for finding in findings:
            print_json(asdict(finding))
    else:
        print_table(_table(findings))
    failed = [finding.check for finding in findings if finding.level == "fail"]
    if failed:
        raise UnavailableError(f"{', '.join(failed)}: see what to do in the last column")
    if strict and any(finding.level == "warn" for finding in findings):
        raise typer.Exit(1)


def examine(store: str, model_sets: list[str], environment: Mapping[str, str]) -> Iterator[Finding]:
    """All findings, each as soon as it is known."""
    yield Finding("python", "ok", platform.python_version())
    yield _versions()
    yield bytecode(Path(torch.__file__), is_kept=not sys.dont_write_bytecode)
    yield _processors()
    gpus = driver_gpus()
    yield graphics(gpus)
    available = _available_memory()
    yield _memory(available)
    yield _shared_memory(Path("/dev/shm"))  # noqa: S108 - Ray's own place, not ours
    folder = session_folder(environment)
    yield session_path(folder)
    if folder.is_dir():
        yield disk(folder)
    yield open_files()
    yield ports()
    yield _attempt("store", lambda: _store(store))
    for name in model_sets:
        yield _attempt(f"model set {name}", partial(_model_set, name))
    yield _placement(model_sets, gpus, available)
    yield ray_access(environment)


def _versions() -> Finding:
    """Installed versions against the ranges that the project states."""
    named = ("torch", "ray", "diffusers", "transformers")
    found = ", ".join(f"{name} {metadata.version(name)}" for name in named)
    needs = [Requirement(text) for text in metadata.requires("editfarm") or []]
    wrong = [
        f"{need.name} {metadata.version(need.name)} is not {need.specifier}"
        for need in needs
        if need.marker is None and metadata.version(need.name) not in need.specifier
    ]
    if wrong:
        return Finding("packages", "fail", "; ".join(wrong), "run `make check` to install anew")
    return Finding("packages", "ok", found)


def _processors() -> Finding:
    cores = len(os.sched_getaffinity(0))
    found = f"{cores} CPU cores"
    if cores < 2:
        return Finding("processors", "warn", found, "two cores keep trainers and backbone apart")
    return Finding("processors", "ok", found)


def _memory(available: int) -> Finding:
    found = f"{available / _GIB:.1f} GiB available"
    if available < _MIN_MEMORY:
        advice = f"{_MIN_MEMORY / _GIB:.0f} GiB are enough: close programs, lower --max-in-flight"
        return Finding("memory", "warn", found, advice)
    return Finding("memory", "ok", found)


def _available_memory() -> int:
    """Bytes that may still be used, by the machine or by this container."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = {name: value for name, _, value in (line.partition(":") for line in lines)}
    available = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    limit = group / "memory.max"
    if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()) != "max":
        used = int((group / "memory.current").read_text(encoding="ascii"))
        available = min(available, int(text) - used)
    return available


def _shared_memory(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    needed = TABLE.local_ray.object_store_bytes
    found = f"{free / 2**20:,.0f} MiB free in {folder}"
    if free < needed:
        advice = f"Ray wants {needed / 2**20:,.0f} MiB: in Docker, start with --shm-size=1g"
        return Finding("shared memory", "warn", found, advice)
    return Finding("shared memory", "ok", found)


def _attempt(check: str, act: Callable[[], str]) -> Finding:
    try:
        return Finding(check, "ok", act())
    except FarmError as error:
        return Finding(check, "fail", type(error).__name__, error.message)


def _store(uri: str) -> str:
    opened = open_store(uri)
    check_writable(opened)
    return f"{opened.uri}: reads, writes, and honours conditional puts"


def _model_set(name: str) -> str:
    found = open_model_set(name)
    found.verify()
    return f"{len(found.digests)} weight files, {weight_bytes(found) / 1e6:.1f} MB, digests match"


def _placement(model_sets: list[str], gpus: list[Gpu], available: int) -> Finding:
    """Where the model sets' backbones would go, of those sets that can be opened."""
    sizes: dict[str, int] = {}
    for name in model_sets:
        try:
            sizes[name] = loaded_bytes(open_model_set(name), "cuda" if gpus else "cpu")
        except (FarmError, OSError):
            continue  # said above
    if gpus:
        return sharing(sizes, [gpu.memory_bytes for gpu in gpus], "GPU")
    return sharing(sizes, [available], "the CPU")


def ray_access(environment: Mapping[str, str]) -> Finding:
    """How Ray tells friend from stranger, by the variables that it reads."""
    mode = environment.get("RAY_AUTH_MODE")
    address = environment.get("RAY_ADDRESS")
    where = f"joins {address}" if address else "starts a Ray of its own"
    if mode is None and address is None:
        return Finding("ray access", "ok", f"{where}, with a random token for this run")
    if mode is None:
        advice = "set RAY_AUTH_MODE=token, or disabled, to what the cluster was started with"
        return Finding("ray access", "warn", f"{where}, RAY_AUTH_MODE is not set", advice)
    if mode == "disabled":
        advice = "whoever reaches its ports can run code: set RAY_AUTH_MODE=token"
        return Finding("ray access", "warn", f"{where} without authentication", advice)
    if mode != "token":
        return Finding("ray access", "fail", f"RAY_AUTH_MODE={mode}", "set it to token or disabled")
    if address is None or "RAY_AUTH_TOKEN" in environment:
        return Finding("ray access", "ok", f"{where}, with a token")
    default = Path(environment.get("HOME", "/")) / ".ray" / "auth_token"
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH", default))
    if path.is_file():
        return Finding("ray access", "ok", f"{where}, with the token in {path}")
    advice = f"no token: set RAY_AUTH_TOKEN, or write the cluster's token to {path}"
    return Finding("ray access", "fail", where, advice)


def _table(findings: list[Finding]) -> Table:
    table = Table("", "check", "found", "what to do", box=None)
    for finding in findings:
        table.add_row(
            f"[{_COLOURS[finding.level]}]{finding.level}[/]",
            finding.check,
            escape(finding.found),
            escape(finding.advice),
        )
    return table


if __name__ == "__main__":
    app()
