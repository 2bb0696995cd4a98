"""AnchorNet on many pictures: sizes that go with what is seen, tables of one shape, its file."""

import pytest
import torch
from safetensors.torch import load_file

from farm.errors import InvalidRequestError, ModelSetError
from farm.methods.learnable_regions.boxes import cell_boxes
from farm.methods.learnable_regions.config import tiny
from farm.methods.learnable_regions.searched import network_of
from farm.zoo.recipes.anchornet import AnchorNetRecipe, Tables
from farm.zoo.recipes.loop import LoopConfig, Training, train_recipe

CONFIG = tiny()
GRID, SIZES = 8, torch.tensor([[1.0, 1.0], [3.0, 3.0]])


def pictures(count: int) -> Tables:
    """Where the first feature is positive, the large size costs less; else the small one."""
    rows = []
    for number in range(count):
        large = number % 3 == 0
        generator = torch.Generator().manual_seed(number)
        features = 0.1 * torch.randn(3, GRID, GRID, generator=generator)
        features[0] += 1.0 if large else -1.0
        cells = cell_boxes(torch.tensor([[4, 4], [3, 5]]), SIZES, GRID)
        losses = torch.tensor([[1.0, 0.0] if large else [0.0, 1.0]] * 2)
        rows.append(Tables(features[None], torch.zeros(1, GRID, GRID), cells[None], losses[None]))
    return Tables.stack(rows)


@pytest.fixture
def path(tmp_path):
    pictures(24).save(tmp_path / "tables.safetensors")
    return tmp_path / "tables.safetensors"


def training(path, folder, steps=60):
    loop = LoopConfig(
        steps=steps,
        batch_size=4,
        learning_rate=2e-2,
        warmup=1,
        average=0.5,
        checkpoint_every=10,
        evaluate_every=steps,
        bf16=False,
    )
    return Training(AnchorNetRecipe(path, CONFIG), loop, folder)


def test_it_learns_which_size_goes_with_what_it_sees(path, tmp_path):
    run = training(path, tmp_path / "run")
    *_, last = train_recipe(run)
    assert last.evaluation is not None
    # pictures that were held out: uniform draws cost 1/2, the right sizes nothing
    assert last.evaluation["uniform"] == 0.5
    assert last.evaluation["least"] == 0
    assert last.evaluation["chosen"] == 0
    assert last.evaluation["expected"] < 0.25


def test_held_out_pictures_are_no_training_pictures(path):
    recipe = AnchorNetRecipe(path, CONFIG)
    assert recipe.held_out == [7, 15, 23]
    assert set(recipe.held_out).isdisjoint(recipe.seen)
    assert len(recipe.held_out) + len(recipe.seen) == 24


def test_an_interrupted_training_goes_on_and_ends_with_the_same_bits(path, tmp_path):
    whole = training(path, tmp_path / "whole", steps=12)
    list(train_recipe(whole))
    stopped = train_recipe(training(path, tmp_path / "half", steps=12))
    for _ in range(10):
        next(stopped)
    stopped.close()
    resumed = training(path, tmp_path / "half", steps=12)
    assert resumed.step == 10
    list(train_recipe(resumed))
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name


def test_what_is_exported_is_what_an_edit_starts_from(path, tmp_path):
    recipe = AnchorNetRecipe(path, CONFIG)
    module = recipe.build()
    recipe.export(module, tmp_path / "out")
    state = network_of(load_file(tmp_path / "out" / "anchornet.safetensors"))
    assert state.keys() == module.network.state_dict().keys()
    seen, _ = pictures(1).example(0, centred=True)
    again = recipe.load(tmp_path / "out")
    assert torch.equal(again.network(seen), module.network(seen))


def test_tables_of_different_shapes_are_refused():
    one, other = pictures(1), pictures(1)
    fewer = Tables(other.features, other.saliency, other.cells[:, :1], other.losses[:, :1])
    with pytest.raises(InvalidRequestError, match="2 loss tables of 2 shapes"):
        Tables.stack([one, fewer])
    with pytest.raises(InvalidRequestError, match="0 loss tables"):
        Tables.stack([])


def test_without_tables_there_is_no_training(tmp_path):
    with pytest.raises(ModelSetError, match="nowhere"):
        AnchorNetRecipe(tmp_path / "nowhere", CONFIG)
