"""A finished edit's provenance, for what only reads it."""

from farm.results import Provenance

PROVENANCE = Provenance(
    method="style_diffusion",
    method_version=1,
    model_set="scenes",
    weights={},
    seed=0,
    config={},
    versions={},
    image_digest="0" * 64,
    stages={"style_diffusion.inversion": "a", "style_diffusion.attention": "b"},
    stages_made=["style_diffusion.inversion"],
    trainer_pid=1,
    backbone_pids=[2],
    work={},
    accelerator_seconds=11.5,
    seconds=14.0,
    stage_seconds={"style_diffusion.inversion": 9.0, "editing": 3.0},
)
