"""A generation scale by scale in a host: pictures meet and part between scales."""

import numpy as np
import pytest
import torch

from farm.backbones.host import OperationHost
from farm.backbones.rows import Branches
from farm.calls import Answer, Call, Paused
from tests.farm.backbones.infinity.test_operations import edit_call
from tests.tiny_infinity import tiny_whole_networks

ONE_OP = 1e-5  # definitions.md, "Equal": single operations in single precision, relative
SCALES = 3


@pytest.fixture(scope="module")
def host():
    return OperationHost(tiny_whole_networks())


def expect_equal(found, expected):
    assert isinstance(found, Answer)
    assert found.work == expected.work
    assert np.array_equal(found.arrays["bits"], expected.arrays["bits"])
    scale = np.abs(expected.arrays["image"]).max()
    difference = np.abs(found.arrays["image"] - expected.arrays["image"]).max()
    assert difference <= ONE_OP * scale


def step(host, *items):
    results = host.run_step(list(items))
    return results if len(results) > 1 else results[0]


@pytest.mark.parametrize("changes", [{}, {"insertion": -1}, {"guided": False}])
def test_pictures_that_meet_and_part_are_what_they_are_alone(host, changes):
    calls = [edit_call(seed, **changes) for seed in (1, 2, 3)]
    expected = host.run_all(calls)
    first, second = step(host, calls[0], calls[1])
    first, second = step(host, first, second)  # the first scale together
    third = step(host, step(host, calls[2]))
    assert second.key == third.key  # both before their second scale
    second, third = step(host, third, second)[::-1]
    first = step(host, first)
    assert first.key == second.key == third.key
    first, third, second = step(host, first, third, second)
    for found, wanted in zip((first, second, third), expected, strict=True):
        expect_equal(found, wanted)


def test_one_that_is_given_up_leaves_the_others_theirs(host):
    calls = [edit_call(seed) for seed in (1, 2, 3)]
    expected = host.run_all(calls)
    items = step(host, *calls)
    for _ in range(SCALES - 1):
        items = step(host, *items)
    first, _, third = items
    for found, wanted in zip(step(host, third, first), (expected[2], expected[0]), strict=True):
        expect_equal(found, wanted)


def test_alone_is_equal_to_the_bit_in_any_company(host):
    calls = [
        Call(call.op, call.arrays, {**call.static, "alone": True})
        for call in (edit_call(1), edit_call(2))
    ]
    expected = host.run_all(calls)
    for found, wanted in zip(host.run_batch(calls), expected, strict=True):
        assert isinstance(found, Answer)
        assert np.array_equal(found.arrays["image"], wanted.arrays["image"])


def test_a_step_taken_again_gives_the_same(host):
    """After memory ran out a step is taken again from the same state, in other company."""
    first, second = step(host, edit_call(1), edit_call(2))
    first, second = step(host, first, second)
    once = step(host, first, second)
    again = step(host, first)
    assert isinstance(again, Paused)
    for found in (step(host, *once)[0], step(host, again)):
        expect_equal(found, host.run_all([edit_call(1)])[0])


def test_branches_part_and_join_by_item():
    tensor = torch.arange(12.0).view(6, 2)  # two copies of three items
    branches = Branches(tensor, 2)
    parts = [branches.rows([2]), branches.rows([0, 1])]
    assert torch.equal(parts[0].tensor, tensor[[2, 5]])
    assert torch.equal(Branches.joined(parts).tensor, tensor[[2, 0, 1, 5, 3, 4]])
    assert Branches(tensor, 1).rows([1, 2]).tensor.data_ptr() == tensor[1:].data_ptr()
