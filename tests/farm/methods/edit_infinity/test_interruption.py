"""A stage that is taken up from a checkpoint ends with the same bits."""

import pytest
import torch

from farm.methods.edit_infinity.training import TrainingState
from tests.farm.methods.edit_infinity.runs import codes_of, session, small
from tests.stages import finish


def stage_of(kind, config, checkpoint=None):
    run, meter = session(config, word=None)
    codes = codes_of(run.client)
    if kind == "prompt":
        return run.prompt_stage(codes, checkpoint), meter
    return run.lora_stage(codes, None, checkpoint), meter


@pytest.mark.parametrize("kind", ["prompt", "lora"])
def test_from_any_update_on_the_result_is_the_same(kind):
    config = small(use_textembedding=False)
    reports, whole = finish(stage_of(kind, config)[0])
    checkpoints = [r.checkpoint for r in reports if r.checkpoint is not None]
    assert len(checkpoints) == 3
    for done, kept in enumerate(checkpoints, 1):
        state = TrainingState.from_tensors({n: t.clone() for n, t in kept.to_tensors().items()})
        stage, meter = stage_of(kind, config, state)
        again = finish(stage)[1]
        assert again.losses == whole.losses
        for name, tensor in whole.to_tensors().items():
            assert torch.equal(again.to_tensors()[name], tensor)
        assert meter.work.get("infinity_backward", 0) == 3 - done
