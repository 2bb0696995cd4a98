"""AnchorNet for many pictures on Ray Train workers."""

from functools import partial
from pathlib import Path

import pytest
import torch

from actors.zoo_training import train_on_workers
from farm.methods.learnable_regions.boxes import cell_boxes
from farm.methods.learnable_regions.config import tiny
from farm.zoo.recipes.anchornet import AnchorNetRecipe, Tables
from farm.zoo.recipes.loop import LoopConfig, Training

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.chaos,  # its loop is that of the zoo's recipes, which `make test` runs
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.timeout(240),
]


def write_tables(path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    cells = cell_boxes(torch.tensor([[3, 3], [4, 5]]), torch.tensor([[1.0, 1.0], [2.0, 2.0]]), 8)
    Tables(
        torch.randn(9, 3, 8, 8, generator=generator),
        torch.rand(9, 8, 8, generator=generator),
        cells.expand(9, 2, 2, 4).contiguous(),
        torch.rand(9, 2, 2, generator=generator),
    ).save(path)
    return path


def build(tables: Path, folder: Path) -> Training:
    loop = LoopConfig(
        steps=3, batch_size=2, learning_rate=0.1, warmup=1, checkpoint_every=1, bf16=False
    )
    return Training(AnchorNetRecipe(tables, tiny()), loop, folder)


def test_two_workers_train_one_anchornet(tmp_path: Path) -> None:
    tables = write_tables(tmp_path / "tables.safetensors")
    first = build(tables, tmp_path / "none").module.state_dict()
    figures = train_on_workers(partial(build, tables, tmp_path / "run"), workers=2)
    assert figures["step"] == 3
    assert {"expected", "chosen", "least", "uniform"} <= figures.keys()
    trained = build(tables, tmp_path / "run")
    assert trained.step == 3
    assert any(not torch.equal(first[n], t) for n, t in trained.module.state_dict().items())
