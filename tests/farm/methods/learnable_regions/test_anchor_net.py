from dataclasses import replace

import pytest
import torch

from farm.errors import InvalidRequestError
from farm.methods.learnable_regions.anchor_net import (
    AnchorNet,
    RegionFeatures,
    build_anchor_net,
    initialise,
    state_of,
)
from farm.methods.learnable_regions.boxes import cell_boxes
from farm.methods.learnable_regions.config import NetworkConfig, Quirks
from farm.methods.learnable_regions.roi import roi_align
from farm.training import keyed_generator

RELEASED = NetworkConfig(saliency=False)
ANCHORS = torch.tensor([[2, 5], [6, 1], [4, 4]])
SIZES = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 2.0]])


def seen(grid=8, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return RegionFeatures(
        features=torch.randn(width, grid, grid, generator=generator),
        saliency=torch.rand(grid, grid, generator=generator),
        boxes=cell_boxes(ANCHORS, SIZES, grid),
    )


def built(quirks=None, config=None, seed=0, start=None, sizes=3):
    return build_anchor_net(
        6,
        sizes,
        config or NetworkConfig(),
        quirks or Quirks(),
        keyed_generator(seed, "net"),
        start,
    )


@pytest.mark.parametrize(("sizes", "count"), [(2, 1274), (4, 1476), (6, 1678), (9, 1981)])
def test_parameters_are_counted_as_published(sizes, count):
    """Spec §1.6, without the projection: 96 S + 8 + 36 + 1028 + 5 S."""
    network = AnchorNet(768, sizes, RELEASED)
    assert sum(p.numel() for p in network.head.parameters()) == count
    assert sum(p.numel() for p in network.projection.parameters()) == 768 * 12 + 12


def test_an_anchor_s_sizes_are_probabilities():
    log_probs = built()(seen())
    assert log_probs.shape == (3, 3)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(3))


def test_features_of_an_anchor_are_those_of_its_boxes_size_by_size():
    network, what = built(), seen()
    projected = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
    found = network.stacked(projected, what)
    for anchor in range(3):
        for size in range(3):
            expected = roi_align(projected, what.boxes[anchor, size][None], 8)[0]
            torch.testing.assert_close(found[anchor, 4 * size : 4 * size + 4], expected)


def test_scrambled_rows_mix_anchors():
    """Q3: block b of the rows belongs to size b // P and anchor b mod P (spec §1.5)."""
    what = seen()
    what = replace(what, boxes=what.boxes[:, :2])  # P = 3 and S = 2 tell a scramble from a swap
    network = built(Quirks(scrambled_roi=True), sizes=2)
    projected = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
    blocks = network.stacked(projected, what).unflatten(1, (2, 4)).flatten(0, 1)
    for number, block in enumerate(blocks):
        box = what.boxes[number % 3, number // 3]
        torch.testing.assert_close(block, roi_align(projected, box[None], 8)[0])


def test_corner_features_see_nothing_but_the_corner():
    """Q4; without it the whole map counts."""
    what = seen()
    changed = what.features.clone()
    changed[:, 3:, 3:] += 1
    for quirk in (True, False):
        network = built(Quirks(corner_roi=quirk))
        same = torch.equal(network.stacked(what.features, what), network.stacked(changed, what))
        assert same is quirk


def test_every_part_of_the_map_counts():
    what = seen()
    network = built()
    features = what.features.clone().requires_grad_()
    network.stacked(features, what).square().sum().backward()
    covered = torch.zeros(8, 8)
    for left, top, right, bottom in what.boxes.flatten(0, 1).tolist():
        covered[int(top) : int(bottom + 0.99), int(left) : int(right + 0.99)] = 1
    assert features.grad is not None
    assert (features.grad.abs().sum(0)[covered == 1] > 0).float().mean() > 0.95


def test_saliency_is_a_channel_where_asked():
    what = seen()
    brighter = replace(what, saliency=what.saliency + 1)
    assert not torch.equal(built()(what), built()(brighter))
    plain = built(config=RELEASED)
    assert torch.equal(plain(what), plain(brighter))


def test_initialisation_is_torch_s_own_distribution_keyed_and_private():
    network = AnchorNet(50, 4, NetworkConfig(channels=40))
    before = torch.get_rng_state()
    initialise(network, keyed_generator("a"))
    assert torch.equal(torch.get_rng_state(), before)
    weight = network.projection.weight
    bound = 1 / 50**0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert torch.equal(built(seed=1).head[0].weight, built(seed=1).head[0].weight)
    assert not torch.equal(built(seed=1).head[0].weight, built(seed=2).head[0].weight)


def test_a_trained_network_is_the_start_of_another():
    trained = built(seed=5)
    again = built(seed=6, start=state_of(trained))
    assert torch.equal(trained(seen()), again(seen()))


def test_a_state_is_a_copy():
    network = built()
    state = state_of(network)
    with torch.no_grad():
        network.head[0].weight.zero_()
    assert state["head.0.weight"].abs().sum() > 0


def test_the_projection_is_trained_and_kept():
    network = built()
    network(seen())[:, 0].sum().backward()
    assert network.projection.weight.grad is not None
    assert network.projection.weight.grad.abs().sum() > 0
    assert "projection.weight" in state_of(network)


def test_an_unsaved_projection_is_neither():
    """Q5: a network that is loaded sees another projection."""
    quirks = Quirks(unsaved_projection=True)
    network = built(quirks, seed=1)
    assert not network.projection.weight.requires_grad
    kept = state_of(network)
    assert not any(name.startswith("projection") for name in kept)
    again = built(quirks, seed=2, start=kept)
    assert torch.equal(again.head[0].weight, network.head[0].weight)
    assert not torch.equal(again.projection.weight, network.projection.weight)


@pytest.mark.parametrize("sizes", [2, 4])
def test_a_network_of_other_sizes_is_refused(sizes):
    other = state_of(built(sizes=sizes))
    with pytest.raises(InvalidRequestError, match=f"has {sizes} sizes.*expected 3 sizes"):
        built(start=other)


def test_half_a_network_is_refused():
    with pytest.raises(InvalidRequestError, match="trained"):
        built(start={"head.0.weight": torch.ones(2)})
