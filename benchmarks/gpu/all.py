"""Every GPU benchmark in one go, within some minutes; what is done is in files at any time.

    python -m benchmarks.gpu.all --json out/gpu
    python -m benchmarks.gpu.all --json out/gpu --only infinity_edit memory --cache /tmp/random

Needs torch and the farm package, no Ray. `--cache` keeps the folders of random weights (8 GB on
disk) for the next call on the same machine.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.gpu import infinity_edit, loading, memory, regions_edit, style_edit, unet_step
from benchmarks.gpu.report import Report, machine
from benchmarks.gpu.setting import Setting, setting_of

BENCHMARKS: Mapping[str, Callable[[Setting], Report]] = {
    "unet_step": unet_step.run,
    "infinity_edit": infinity_edit.run,
    "regions_edit": regions_edit.run,
    "style_edit": style_edit.run,
    "memory": memory.run,
    "loading": loading.run,
    "compiled_step": unet_step.run_compiled,
}
"""What was asked for first comes first; later ones may be left out for lack of time."""


def run_all(setting: Setting, names: list[str]) -> dict[str, object]:
    """Each benchmark; one that fails does not stop the others, and is said."""
    found: dict[str, object] = {"machine": machine()}
    for name in names:
        start = time.monotonic()
        try:
            found[name] = BENCHMARKS[name](setting).to_dict()
        except Exception:  # noqa: BLE001 - the others are worth their time
            found[name] = {"error": traceback.format_exc()}
            sys.stderr.write(f"{name} failed:\n{traceback.format_exc()}\n")
        seconds = time.monotonic() - start
        sys.stderr.write(f"{name}: {seconds:.1f} s\n")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if setting.out is not None:
            setting.out.mkdir(parents=True, exist_ok=True)
            text = json.dumps(found, indent=1) + "\n"
            (setting.out / "all.json").write_text(text, encoding="utf-8")
    return found


def main() -> None:
    """The command line; ends with 1 if a benchmark failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, help="Folder for the reports.")
    parser.add_argument("--tiny", action="store_true", help="Small sizes, counts alone.")
    parser.add_argument("--cache", type=Path, help="Folder that keeps random weights.")
    parser.add_argument("--minutes", type=float, default=9.0, help="For all of it.")
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = given.cache or Path(folder)
        setting = setting_of(tiny=given.tiny, cache=cache, out=given.json, minutes=given.minutes)
        found = run_all(setting, given.only)
    failed = [name for name, one in found.items() if isinstance(one, dict) and "error" in one]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
