"""Learnable Regions, seconds an edit, against 99 full renders one by one (the README's command).

    python -m benchmarks.gpu.regions_edit --json out/gpu

A whole edit with the README's anchors and sizes (9 anchors, half-widths 4 to 15 by 2) and our
search: previews of all candidates, full renders of the best. The base is one render of the
reference, timed some times and multiplied by 99; in UNet evaluations both are counted.
"""

import torch

from benchmarks.gpu.reference import (
    LEARNABLE_REGIONS,
    as_torch_is,
    load_reference,
    render_seconds,
)
from benchmarks.gpu.report import Report
from benchmarks.gpu.setting import Setting, edit_of, main, run_alone
from benchmarks.gpu.small import QUICK_REGIONS
from benchmarks.gpu.timing import forget_peak, peak_gb
from farm.backbones.host import OperationHost

METHOD = "learnable_regions"
README = {"point_number": 9, "min_window_size": 4.0, "max_window_size": 15.0, "window_step": 2.0}
_GUIDED = 2
"""UNet evaluations of a guided call."""
_EDIT_SECONDS = 60.0


def run(setting: Setting) -> Report:
    """Measure, and keep figures as they come."""
    report = setting.report("regions_edit")
    models = setting.model_set("sd15+regions")
    networks = setting.networks(models)
    reference = load_reference(models, setting.device, "inpainting")
    latents = torch.zeros(1, *models.spec.latent_shape, device=setting.device)
    rounds = 1 if setting.tiny else 8

    def decode() -> None:
        with torch.no_grad():
            networks.vae.decode(latents)

    report.count(
        reference_rounds=rounds,
        reference_unet_evaluations=(
            _GUIDED * LEARNABLE_REGIONS["renders"] * LEARNABLE_REGIONS["unet_calls"]
        ),
    )
    with as_torch_is():
        report.add(**render_seconds(reference, models, decode, rounds=rounds))
    del reference
    host = OperationHost(networks)
    run_alone(edit_of(models, METHOD, QUICK_REGIONS, seed=99, word=None), host)
    if report.has_time_for("edit", _EDIT_SECONDS):
        forget_peak()
        parameters = QUICK_REGIONS if setting.tiny else README
        result, seconds = run_alone(edit_of(models, METHOD, parameters, word=None), host)
        work = result.provenance.work
        report.count(**work)
        report.add(edit_seconds=seconds, peak_gb=peak_gb())
        report.add(
            faster=report.figures["reference_edit_seconds"] / seconds,
            fewer_evaluations=report.counts["reference_unet_evaluations"] / work["unet_forward"],
        )
    return report


if __name__ == "__main__":
    main(run)
