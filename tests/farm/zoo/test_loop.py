"""The zoo's training loop: resumes to the bit, and its schedule is what it says."""

import itertools
import math

import pytest
import torch
from torch import nn

from farm.zoo.recipes.grounding import grounding_loss
from farm.zoo.recipes.loop import LoopConfig, Training, learning_rate_at, train_recipe

CONFIG = LoopConfig(
    steps=6, batch_size=4, learning_rate=0.1, warmup=2, checkpoint_every=3, bf16=False
)


class PlaneRecipe:
    """Fits a plane to points drawn from the generator alone."""

    name = "plane"

    def build(self):
        module = nn.Linear(2, 1)
        with torch.no_grad():
            module.weight.fill_(0.5)
            module.bias.zero_()
        return module

    def loss(self, module, step, batch_size, generator):
        points = torch.randn(batch_size, 2, generator=generator)
        return (module(points) - points.sum(1, keepdim=True)).square().mean(), {"step": float(step)}

    def evaluate(self, module):
        return {"bias": module.bias.item()}

    def export(self, module, folder):
        raise NotImplementedError

    def load(self, folder):
        raise NotImplementedError


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    whole = Training(PlaneRecipe(), CONFIG, tmp_path / "whole")
    list(train_recipe(whole))
    first = Training(PlaneRecipe(), CONFIG, tmp_path / "parts")
    list(itertools.islice(train_recipe(first), 4))  # the checkpoint is of step 3
    second = Training(PlaneRecipe(), CONFIG, tmp_path / "parts")
    assert second.step == 3
    reports = list(train_recipe(second))
    assert [r.step for r in reports] == [4, 5, 6]
    assert reports[-1].evaluation is not None
    for name, value in whole.module.state_dict().items():
        assert torch.equal(second.module.state_dict()[name], value)
        assert torch.equal(second.average[name], whole.average[name])


def test_the_learning_rate_warms_up_stays_and_falls_along_a_cosine():
    config = LoopConfig(
        steps=100, batch_size=1, learning_rate=2.0, warmup=10, constant=0.2, final_rate=0.1
    )
    assert learning_rate_at(0, config) == pytest.approx(0.2)
    assert learning_rate_at(20, config) == pytest.approx(2.0)
    half = 2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert learning_rate_at(60, config) == pytest.approx(half)
    assert learning_rate_at(100, config) == pytest.approx(0.2)


def test_grounding_is_zero_only_for_a_map_that_covers_its_mask_evenly():
    masks = torch.zeros(1, 2, 16, 16)
    masks[0, 0, 4:8, 4:8] = 1
    tags, weight = torch.tensor([[-1, 0]]), torch.ones(1)

    def loss(map_):
        attention = torch.full((1, 256, 2), 0.5)
        attention[0, :, 1] = map_.flatten()
        return grounding_loss([attention], masks, tags, weight).item()

    even, peak = masks[0, 0].clone(), torch.zeros(16, 16)
    peak[5, 5] = 1.0
    # 1e-5: the floors that keep the logarithms finite
    assert loss(even) == pytest.approx(0, abs=1e-5)
    assert loss(torch.ones(16, 16)) == pytest.approx(math.log(256 / 16), rel=1e-4)
    assert loss(peak) > loss(torch.ones(16, 16))
