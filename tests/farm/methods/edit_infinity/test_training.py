"""The optimisation of both stages: against torch's own, resumed, kept, and diverged."""

from itertools import islice

import pytest
import torch

from farm.errors import CorruptArtifactError, EditDivergedError
from farm.methods.edit_infinity.client import StepLoss
from farm.methods.edit_infinity.config import OptimiserConfig
from farm.methods.edit_infinity.training import Run, TrainingState, optimise
from tests.stages import finish

CONFIG = OptimiserConfig(learning_rate=0.05, weight_decay=0.1, max_grad_norm=0.5)
START = torch.tensor([[1.0, -2.0], [0.5, 3.0]])


def loss_at(leaf, step):
    target = torch.full_like(leaf, float(step % 3))
    loss = ((leaf - target) ** 2).sum()
    return StepLoss(loss, loss.item(), 0.0, torch.tensor([0.5]))


def run(updates=7, saved=None):
    return Run("stage", updates, {} if saved is None else saved, before=1, total=updates + 2)


def test_it_is_adamw_with_the_gradient_clipped():
    reports, state = finish(optimise(TrainingState.starting(START), loss_at, CONFIG, run()))
    leaf = START.clone().requires_grad_()
    oracle = torch.optim.AdamW([leaf], 0.05, (0.9, 0.97), 1e-8, 0.1)
    for step, report in enumerate(reports):
        oracle.zero_grad()
        loss = loss_at(leaf, step).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([leaf], 0.5)
        oracle.step()
        assert report.loss == loss.item()
        assert report.detail["gradient_norm"] == norm.item()
        assert (report.step, report.total) == (step + 2, 9)
    assert torch.equal(state.leaf, leaf.detach())


def test_an_interrupted_run_ends_with_the_same_bits():
    _, whole = finish(optimise(TrainingState.starting(START), loss_at, CONFIG, run()))
    stage = optimise(TrainingState.starting(START), loss_at, CONFIG, run())
    kept = list(islice(stage, 3))[-1].checkpoint
    stored = TrainingState.from_tensors({n: t.clone() for n, t in kept.to_tensors().items()})
    assert stored.step == 3
    reports, rest = finish(optimise(stored, loss_at, CONFIG, run()))
    assert len(reports) == 4
    assert torch.equal(rest.leaf, whole.leaf)
    assert rest.losses == whole.losses
    assert rest.norms == whole.norms


def test_iterations_are_kept_under_their_names():
    saved = {0: 1, 2: 3, 7: 8}  # one less than their names: the released count
    _, state = finish(optimise(TrainingState.starting(START), loss_at, CONFIG, run(saved=saved)))
    assert set(state.snapshots) == {1, 3, 8}
    assert torch.equal(state.snapshots[1], START)
    assert torch.equal(state.snapshots[8], state.leaf)
    _, two = finish(optimise(TrainingState.starting(START), loss_at, CONFIG, run(2)))
    assert torch.equal(state.snapshots[3], two.leaf)


def test_snapshots_survive_an_interruption():
    saved = {2: 2, 5: 5}
    stage = optimise(TrainingState.starting(START), loss_at, CONFIG, run(5, saved))
    kept = list(islice(stage, 4))[-1].checkpoint
    again = TrainingState.from_tensors(kept.to_tensors())
    _, state = finish(optimise(again, loss_at, CONFIG, run(5, saved)))
    assert set(state.snapshots) == {2, 5}


def test_a_loss_that_is_no_number_ends_it():
    def broken(leaf, step):
        return StepLoss((leaf * float("nan")).sum(), 0.0, 0.0, torch.zeros(1))

    with pytest.raises(EditDivergedError, match=r"step 0 of 7.*learning_rate below 0\.05"):
        finish(optimise(TrainingState.starting(START), broken, CONFIG, run()))


def test_a_damaged_state_is_refused():
    tensors = TrainingState.starting(START).to_tensors()
    with pytest.raises(CorruptArtifactError, match="has no 'mean'"):
        TrainingState.from_tensors({n: t for n, t in tensors.items() if n != "mean"})
    with pytest.raises(CorruptArtifactError, match="do not belong together"):
        TrainingState.from_tensors(tensors | {"losses": torch.ones(2)})
