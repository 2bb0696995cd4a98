"""StyleDiffusion edits an hour, one and eight at once, against the reference schedule run serially.

    python -m benchmarks.gpu.style_edit --json out/gpu

Whole edits with the paper's defaults through the runner, into a store of their own. The base is
`benchmarks.gpu.reference`: its steps are timed some times each and multiplied by the spec's counts.
"""

from functools import partial

from benchmarks.gpu.lockstep import Lockstep
from benchmarks.gpu.reference import as_torch_is, load_reference, style_diffusion_seconds
from benchmarks.gpu.report import Report
from benchmarks.gpu.setting import Setting, edit_of, main, run_alone
from benchmarks.gpu.timing import forget_peak, peak_gb
from farm.backbones.host import OperationHost
from farm.runner import PreparedEdit

METHOD = "style_diffusion"
AT_ONCE = 8
_TINY = {"num_steps": 3, "inner_steps": 2}
_ALONE_SECONDS, _TOGETHER_SECONDS = 60.0, 120.0
"""About what the whole schedule takes; less than that, and it is left out."""


def run(setting: Setting) -> Report:
    """Measure, and keep figures as they come."""
    report = setting.report("style_edit")
    models = setting.model_set("sd15")
    parameters = _TINY if setting.tiny else {}
    reference = load_reference(models, setting.device)
    rounds = 1 if setting.tiny else 5
    report.count(reference_rounds=rounds)
    with as_torch_is():
        report.add(**style_diffusion_seconds(reference, models, rounds=rounds))
    del reference
    networks = setting.networks(models)
    host = OperationHost(networks)
    warm = edit_of(models, METHOD, {**_TINY, "num_steps": 2}, seed=99)
    run_alone(warm, host)
    if report.has_time_for("alone", _ALONE_SECONDS):
        forget_peak()
        result, seconds = run_alone(edit_of(models, METHOD, parameters), host)
        report.count(**{f"alone_{n}": count for n, count in result.provenance.work.items()})
        report.add(alone_seconds=seconds, alone_per_hour=3600 / seconds, alone_peak_gb=peak_gb())
    at_once = 2 if setting.tiny else AT_ONCE
    if report.has_time_for("together", _TOGETHER_SECONDS):
        _together(
            report, host, [edit_of(models, METHOD, parameters, seed=n) for n in range(at_once)]
        )
    _ratios(report)
    return report


def _together(report: Report, host: OperationHost, edits: list[PreparedEdit]) -> None:
    forget_peak()
    lockstep = Lockstep(host)
    outcomes = lockstep.run_edits([partial(run_alone, edit) for edit in edits])
    seconds = max(taken for _, taken in outcomes)
    sizes = lockstep.batches.get("unet.value_loss", [])
    report.count(together=len(edits), together_value_batches=len(sizes))
    report.add(
        together_seconds=seconds,
        together_per_hour=3600 * len(edits) / seconds,
        together_mean_batch=sum(sizes) / max(1, len(sizes)),
        together_peak_gb=peak_gb(),
    )


def _ratios(report: Report) -> None:
    serial = report.figures["reference_edit_seconds"]
    report.add(reference_per_hour=3600 / serial)
    for name in ("alone", "together"):
        rate = report.figures.get(f"{name}_per_hour")
        if rate is not None:
            report.add(**{f"{name}_to_reference": rate * serial / 3600})


if __name__ == "__main__":
    main(run)
