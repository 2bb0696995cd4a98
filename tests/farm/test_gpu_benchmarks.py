"""The GPU benchmarks on small networks: what they count holds anywhere, what they time does not."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.gpu import infinity_edit, loading, memory, regions_edit, style_edit, unet_step
from benchmarks.gpu.lockstep import Lockstep
from benchmarks.gpu.reference import LEARNABLE_REGIONS, STYLE_DIFFUSION
from benchmarks.gpu.setting import WHOLE, setting_of
from farm.calls import Answer, Call
from farm.errors import EditDivergedError


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    return setting_of(tiny=True, cache=folder / "cache", out=folder / "out")


def test_unet_steps_are_timed_in_both_modes_and_flops_are_counted(setting):
    report = unet_step.run(setting)
    assert report.counts["step_flops"] > 0
    assert report.counts["captured_captures"] == 0, "a CPU has no graphs"
    for mode in ("eager", "captured"):
        for batch in (1, 2):
            assert report.figures[f"{mode}_{batch}_samples_per_second"] > 0
    written = json.loads((setting.out / "unet_step.json").read_text())
    assert written["figures"] == report.figures


def test_style_edits_are_whole_and_share_batches(setting):
    """3 steps of at most 2: what one edit costs is the method's own plan, and both edits batch."""
    report = style_edit.run(setting)
    counts = report.counts
    assert counts["alone_unet_backward"] > 0
    assert counts["alone_vae_encode"] == 1
    assert counts["alone_safety_forward"] == 2, "the edit and the reconstruction"
    assert counts["together"] == 2
    assert report.figures["together_mean_batch"] > 1.5
    per_edit = report.figures["reference_edit_seconds"]
    step, forward, edit = (
        report.figures[f"reference_{name}_seconds"] for name in ("step", "forward", "edit_forward")
    )
    assert per_edit == pytest.approx(1015 * step + 120 * forward + 150 * edit, rel=1e-3)


def test_counts_of_the_references_are_the_specs():
    assert STYLE_DIFFUSION == {"forward": 1135, "forward_backward": 1015, "edit_forward": 150}
    assert LEARNABLE_REGIONS == {"renders": 99, "unet_calls": 51}


def test_a_regions_edit_is_whole_and_cheaper_in_evaluations(setting):
    report = regions_edit.run(setting)
    assert report.counts["reference_unet_evaluations"] == 2 * 99 * 51
    assert report.counts["dino_forward"] == 1
    ratio = 2 * 99 * 51 / report.counts["unet_forward"]
    assert report.figures["fewer_evaluations"] == pytest.approx(ratio, rel=1e-4)


def test_an_infinity_edit_trains_prompt_and_adapters(setting):
    report = infinity_edit.run(setting)
    assert report.counts["prompt_steps"] == 2
    assert report.counts["lora_steps"] == 2
    assert report.counts["edit_passs"] == 1
    assert report.counts["infinity_backward"] == 4


def test_memory_names_every_network(setting):
    report = memory.run(setting)
    assert report.counts["networks"] == 11
    assert report.figures["unet_gb"] > 0


def test_loading_measures_a_set_and_its_parts(setting):
    report = loading.run(setting, (WHOLE, "sd15"))
    assert report.counts["sd15_files"] == 5
    assert report.counts["sd15_regions_infinity_2b_files"] == 11
    assert report.figures["sd15_process_gb"] > 0
    assert report.figures["sd15_regions_infinity_2b_first_scale_seconds"] > 0
    assert "sd15_first_scale_seconds" not in report.figures, "that part of it has no Infinity"


def test_loading_measures_a_set_of_regions_alone(tmp_path):
    setting = setting_of(tiny=True, cache=tmp_path, base="sd2-inpainting")
    report = loading.run(setting, ("sd2-inpainting",))
    assert report.figures["sd2_inpainting_first_step_seconds"] > 0


def test_what_does_not_fit_is_left_out_and_said(tmp_path):
    setting = setting_of(tiny=True, cache=tmp_path, minutes=0)
    report = loading.run(setting, ("sd15",))
    assert report.figures == {}
    assert "it takes about 60 s" in report.skipped["sd15"]


def test_they_run_without_ray():
    """Everything that the driver imports, in a process where Ray cannot be imported."""
    code = (
        "import sys\n"
        "sys.modules['ray'] = None\n"
        "import benchmarks.gpu.all\n"
        "assert not [n for n in sys.modules if n.split('.')[0] in ('actors', 'serve', 'jobs')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Batches:
    """A host that remembers its batches; negative numbers diverge."""

    def __init__(self):
        self.sizes = []

    def run_batch(self, calls):
        self.sizes.append(len(calls))
        return [
            EditDivergedError("negative") if call.arrays["x"] < 0 else Answer(call.arrays, {}, 0.0)
            for call in calls
        ]


def test_edits_in_lockstep_share_every_batch_until_one_ends():
    host = Batches()
    lockstep = Lockstep(host)

    def edit(number, steps):
        def go(executor):
            for step in range(steps):
                (answer,) = executor.run_all([Call("op", {"x": np.asarray(number + step)})])
                assert answer.arrays["x"] == number + step
            return number

        return go

    assert lockstep.run_edits([edit(10, 3), edit(20, 3), edit(30, 5)]) == [10, 20, 30]
    assert host.sizes == [3, 3, 3, 1, 1]
    assert lockstep.batches == {"op": [3, 3, 3, 1, 1]}


def test_an_edit_that_fails_leaves_the_others_alone():
    host = Batches()
    done = []

    def bad(executor):
        executor.run_all([Call("op", {"x": np.asarray(-1)})])

    def good(executor):
        for _ in range(3):
            executor.run_all([Call("op", {"x": np.asarray(1)})])
        done.append(True)

    with pytest.raises(EditDivergedError):
        Lockstep(host).run_edits([bad, good])
    assert done == [True]
