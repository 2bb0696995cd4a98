"""EditInfinity-2B at 1024²: a prompt step, an adapter step, the edit, and all of them in one edit.

    python -m benchmarks.gpu.infinity_edit --json out/gpu

10 prompt steps, 20 adapter steps and an edit through the runner, as the paper has them. What each
operation took is the host's own time, from arrays to arrays.
"""

import statistics

from benchmarks.gpu.report import Report
from benchmarks.gpu.setting import Setting, Timed, edit_of, main, run_alone
from benchmarks.gpu.timing import forget_peak, peak_gb
from farm.backbones.host import OperationHost

METHOD = "edit_infinity"
_TINY = {
    "train_textembedding_iter": 2,
    "train_lora_iter": 2,
    "prompt_rows": 2,
    "lora_r": 2,
    "save_every": 2,
}
_SIDE, _TINY_SIDE = 1024, 256
_EDIT_SECONDS = 60.0
_NAMES = {
    "infinity.prompt_loss": "prompt_step",
    "infinity.lora_loss": "lora_step",
    "infinity.edit": "edit_pass",
    "infinity.word_attention": "attention",
    "infinity.log_odds": "log_odds",
    "bsq.encode": "encode",
    "t5.embed_tokens": "text",
}


def run(setting: Setting) -> Report:
    """Measure, and keep figures as they come."""
    report = setting.report("infinity_edit")
    models = setting.model_set("sd15+infinity-2b")
    networks = setting.networks(models)
    host = OperationHost(networks)
    side = _TINY_SIDE if setting.tiny else _SIDE
    shortest = {**_TINY, "train_textembedding_iter": 1, "train_lora_iter": 1, "save_every": 1}
    _, first = run_alone(edit_of(models, METHOD, shortest, seed=99, size=side), Timed(host))
    report.add(first_short_edit_seconds=first)
    if not report.has_time_for("edit", _EDIT_SECONDS):
        return report
    forget_peak()
    timed = Timed(host)
    parameters = _TINY if setting.tiny else {}
    result, seconds = run_alone(edit_of(models, METHOD, parameters, size=side), timed)
    report.count(**result.provenance.work)
    report.add(edit_seconds=seconds, peak_gb=peak_gb())
    for op, name in _NAMES.items():
        if op in timed.seconds:
            report.add(**{f"{name}_ms": 1000 * statistics.median(timed.seconds[op])})
            report.count(**{f"{name}s": len(timed.seconds[op])})
    return report


if __name__ == "__main__":
    main(run)
