"""The zoo's loop on Ray Train: any number of workers, one set of weights."""

from functools import partial
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from actors.zoo_training import _unwrapped, train_on_workers
from farm.errors import EditFailedError, ModelSetError
from farm.zoo.recipes.loop import LoopConfig, Training, generator_at, train_recipe

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.timeout(240),
]

CONFIG = LoopConfig(
    steps=3, batch_size=4, learning_rate=0.1, warmup=1, checkpoint_every=1, bf16=False
)


class LineRecipe:
    """Fits a line to points drawn from the generator alone."""

    name = "line"

    def build(self) -> nn.Module:
        module = nn.Linear(2, 1)
        with torch.no_grad():
            module.weight.copy_(torch.tensor([[0.5, -0.5]]))
            module.bias.zero_()
        return module

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        points = torch.randn(batch_size, 2, generator=generator)
        values = points.sum(dim=1, keepdim=True) + 1
        return ((module(points) - values) ** 2).mean(), {"drawn": float(step)}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        return {"bias": float(module.get_parameter("bias").item())}

    def export(self, module: nn.Module, folder: Path) -> None:
        raise NotImplementedError

    def load(self, folder: Path) -> nn.Module:
        raise NotImplementedError


class BothRanksRecipe(LineRecipe):
    """Two workers' steps by hand: one loss over the points of both ranks."""

    def loss(
        self,
        module: nn.Module,
        step: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        losses = [
            super(BothRanksRecipe, self).loss(module, step, batch_size, generator_at(0, step, r))[0]
            for r in (0, 1)
        ]
        return torch.stack(losses).mean(), {}


class WatchedTraining(Training):
    """Leaves each worker's weights on disk after the last step, whatever its rank."""

    def update_average(self) -> None:
        super().update_average()
        if self.step == self.config.steps:
            rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
            save_file(dict(self.module.state_dict()), self.folder / f"rank{rank}.safetensors")


def build(folder: Path, config: LoopConfig = CONFIG) -> Training:
    return WatchedTraining(LineRecipe(), config, folder)


def weights(folder: Path, rank: int) -> dict[str, Tensor]:
    return load_file(folder / f"rank{rank}.safetensors")


@pytest.mark.chaos  # a minute of starting processes; test_smoke_training has the recipes in two
def test_one_worker_trains_as_the_plain_loop(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "ray").mkdir()
    for _ in train_recipe(build(tmp_path / "plain")):
        pass
    figures = train_on_workers(partial(build, tmp_path / "ray"), workers=1)
    torch.testing.assert_close(
        weights(tmp_path / "ray", 0), weights(tmp_path / "plain", 0), rtol=0, atol=0
    )
    assert figures["step"] == 3
    assert figures["drawn"] == 2
    assert {"loss", "bias"} <= set(figures)


@pytest.mark.chaos
def test_two_workers_end_with_the_weights_of_their_mean_gradient(tmp_path: Path) -> None:
    train_on_workers(partial(build, tmp_path), workers=2, report_every=1)
    torch.testing.assert_close(weights(tmp_path, 0), weights(tmp_path, 1), rtol=0, atol=0)
    by_hand = Training(BothRanksRecipe(), CONFIG, tmp_path / "by-hand")
    for _ in train_recipe(by_hand):
        pass
    # the mean of two means and an all-reduce differ by rounding
    torch.testing.assert_close(
        weights(tmp_path, 0), dict(by_hand.module.state_dict()), rtol=1e-5, atol=1e-6
    )
    assert build(tmp_path).step == 3  # the checkpoint that rank 0 wrote


def test_what_a_worker_refuses_is_raised_as_itself() -> None:
    refusal = UserExceptionWithTraceback(ModelSetError("the autoencoder is missing"), "…")
    error = _unwrapped(WorkerGroupError("…", {1: refusal}))
    assert type(error) is ModelSetError
    bug = UserExceptionWithTraceback(KeyError("nobody thought of this"), "the traceback")
    assert type(_unwrapped(WorkerGroupError("…", {0: bug}))) is EditFailedError
