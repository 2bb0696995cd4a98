"""Outcomes as a job leaves them, for the tests of the report and of totals."""

from farm.requests import parse_request
from farm.results import EditResult, Provenance
from jobs.outcomes import DoneEdit

OUTPUTS = ("edited.png", "mask.png", "attention.png", "metrics.json")


def done_edit(
    *,
    line=1,
    source_prompt="a red ball on sand",
    target_prompt="a blue ball on sand",
    truth=None,
    reused=False,
    stage_reused=False,
    work=None,
    trainer_pid=11,
) -> DoneEdit:
    request = parse_request(
        {"image": "a.png", "source_prompt": source_prompt, "target_prompt": target_prompt}
    )
    provenance = Provenance(
        method="style_diffusion",
        method_version=1,
        model_set="scenes",
        weights={"unet/model.safetensors": "c" * 64},
        seed=0,
        config={},
        versions={"editfarm": "0.1.0"},
        image_digest="d" * 64,
        stages={"inversion": "e" * 32},
        stages_made=[] if stage_reused else ["inversion"],
        trainer_pid=trainer_pid,
        backbone_pids=[22],
        work={"unet_forward": 1234} if work is None else work,
        accelerator_seconds=2.5,
        seconds=10.0,
        stage_seconds={"inversion": 7.5, "editing": 2.5},
    )
    result = EditResult(
        edit_id=f"{line:032x}",
        attempt="f" * 32,
        files={name: f"edits/{line}/{name}" for name in OUTPUTS},
        provenance=provenance,
        reused=reused,
    )
    return DoneEdit(
        line=line, name=f"line-{line}", request=request, seconds=11.0, result=result, truth=truth
    )
