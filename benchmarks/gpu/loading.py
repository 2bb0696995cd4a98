"""From files to the first step: seconds and memory of each model set, and pages that actors share.

    python -m benchmarks.gpu.loading --json out/gpu
    python -m benchmarks.gpu.loading --base sd15 --variant full --json out/cpu

A set is loaded twice: the second time its files are in the page cache, as on a machine where it was
loaded before. On a CPU two further processes load it at once, and what they share is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.setting import WHOLE, Setting, setting_of
from benchmarks.gpu.timing import forget_peak, peak_gb, seconds_of
from farm.backbones.infinity.generation import Guidance, generate
from farm.backbones.infinity.sampling import Filter
from farm.backbones.networks import Networks, load_networks
from farm.zoo.checking import released_parts
from farm.zoo.model_sets import ModelSet, open_model_set

SETS = ("sd15", "sd15+regions", "sd15+regions+infinity-2b")
_SET_SECONDS = 60.0
_KIB = 1024
_SIDE = 1024
_PROMPT = 8
"""Tokens."""


def run(setting: Setting, sets: Sequence[str] = SETS) -> Report:
    """Measure, and keep figures as they come."""
    report = setting.report("loading")
    for name in sets:
        if not report.has_time_for(name, _SET_SECONDS):
            continue
        models = setting.model_set(name)
        key = name.replace("+", "_").replace("-", "_")
        parts = released_parts(name)
        files = [file for file in models.digests if file.split("/")[0] in parts]
        size = sum((models.folder / file).stat().st_size for file in files)
        report.count(**{f"{key}_bytes": size, f"{key}_files": len(files)})
        _load(report, setting, models, key)
        if setting.device == "cpu" and name == setting.base and not setting.tiny:
            report.add(**{f"{key}_{n}": v for n, v in _shared(models).items()})
    return report


def _load(report: Report, setting: Setting, models: ModelSet, key: str) -> None:
    kept: list[Networks] = []

    def load() -> None:
        kept.append(setting.networks(models))

    forget_peak()
    report.add(**{f"{key}_first_seconds": seconds_of(load)})
    kept.clear()
    forget_peak()
    report.add(**{f"{key}_again_seconds": seconds_of(load)})
    report.add(**{f"{key}_first_step_seconds": seconds_of(lambda: first_step(kept[0]))})
    if kept[0].infinity is not None:
        report.add(**{f"{key}_first_scale_seconds": seconds_of(lambda: first_scale(kept[0]))})
    report.add(**{f"{key}_peak_gb": peak_gb(), f"{key}_process_gb": _memory()["Pss"] / 1e9})


def first_step(networks: Networks) -> None:
    """A noise prediction of one picture; of an inpainting set, with an empty hole."""
    spec, device = networks.spec, networks.device
    latents = torch.zeros(1, *spec.latent_shape, device=device)
    embeds = torch.zeros(1, spec.tokens, spec.text_width, device=device)
    timestep = torch.full((1,), 500, device=device)
    with torch.no_grad():
        if spec.text_to_image:
            networks.unet(latents, timestep, embeds)
            return
        assert networks.regions is not None
        networks.regions.inpainter(latents, timestep, embeds, latents[:, :1], latents)


def first_scale(networks: Networks) -> None:
    """A prompt, and the first scale of the picture for it: one cell, by every block."""
    infinity = networks.infinity
    assert infinity is not None
    schedule = infinity.spec.schedule_for(_SIDE, _SIDE)
    ids = torch.ones(1, _PROMPT, dtype=torch.long, device=networks.device)
    plain = torch.ones(1, schedule.num_scales, device=networks.device)
    with torch.no_grad():
        given = infinity.transformer.condition(infinity.text(ids))
        scales = generate(
            infinity.transformer,
            given,
            schedule,
            Guidance(None, plain, plain),
            Filter(top_k=1),
            None,
        )
        next(iter(scales))


def _shared(models: ModelSet) -> dict[str, float]:
    """Memory of two processes that hold the set at the same time."""
    command = [sys.executable, "-m", "benchmarks.gpu.loading", "--hold", str(models.folder)]
    holders = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for holder in holders:
        assert holder.stdout is not None
        holder.stdout.readline()  # loaded
    for holder in holders:
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
    found = [json.loads(holder.stdout.readline()) for holder in holders if holder.stdout]
    for holder in holders:
        holder.communicate("\n")
    mean = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
    return {f"two_processes_{name.lower()}_gb": value / 1e9 for name, value in mean.items()}


def _hold(folder: str) -> None:
    """Load, say so, say the memory when asked, stay until told to go."""
    models = open_model_set(folder)
    networks = load_networks(models.folder, models.spec, "cpu")
    touched = sum(
        float(p.detach().flatten()[::_KIB].float().sum())
        for module in networks.modules().values()
        for p in module.parameters()
    )
    sys.stdout.write(f"loaded {touched}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(_memory()) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


def _memory() -> dict[str, float]:
    """Bytes of this process: Rss counts shared pages whole, Pss each by how many share it."""
    path = Path(f"/proc/{os.getpid()}/smaps_rollup")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = {line.split(":")[0]: float(line.split()[1]) * _KIB for line in lines[1:]}
    names = ("Rss", "Pss", "Private_Dirty")
    return {name: found.get(name, 0.0) for name in names}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--base", default=WHOLE, help="The set of random weights to write.")
    parser.add_argument("--sets", nargs="+", help="Parts of it to load. [all of it]")
    parser.add_argument("--variant", choices=["full", "fp16"], default="fp16")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hold:
        _hold(given.hold)
        return
    with tempfile.TemporaryDirectory() as folder:
        cache = given.cache or Path(folder)
        setting = setting_of(
            tiny=given.tiny,
            cache=cache,
            out=given.json,
            minutes=given.minutes,
            base=given.base,
            variant=given.variant,
        )
        run(setting, given.sets or [given.base])


if __name__ == "__main__":
    main()
