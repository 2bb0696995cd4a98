"""AnchorNet: its features, its probabilities, its draws."""

import torch

from farm.methods.learnable_regions.anchor_net import RegionFeatures
from farm.methods.learnable_regions.config import reference
from farm.methods.learnable_regions.training import gumbel_noise
from tests.parity.regions_cases.common import checks, chosen_sizes, close, window_of
from tests.parity.regions_set import GoldenSet, Window, released_sizes


@checks(r"roi_regions_w(\d+)")
def roi_lists(golden: GoldenSet, array: str, window: str) -> None:
    """Image by image, then size by size: a list of (image, box) for all anchors."""
    cells = window_of(golden, int(window)).cells.transpose(1, 2)  # (images, sizes, anchors, 4)
    expected = golden.array(array).unflatten(0, cells.shape[:2])
    assert torch.equal(cells, expected[..., 1:])


@checks(r"roi_in_w(\d+)")
def roi_features(golden: GoldenSet, array: str, window: str) -> None:
    close(window_of(golden, int(window)).roi, golden.array(array))


@checks(r"logp_w(\d+)")
def log_probabilities(golden: GoldenSet, array: str, window: str) -> None:
    close(window_of(golden, int(window)).log_probs, golden.array(array), 1e-4)


@checks(r"gumbel_w(\d+)")
def gumbel(golden: GoldenSet, array: str, window: str) -> None:
    """The generator of the same seed, as long as this torch draws as that one did."""
    seed = golden.values["anchor"][window]["rng_seed_before_gumbel"]
    expected = golden.array(array)
    found = gumbel_noise(expected, torch.Generator().manual_seed(seed))
    close(found, expected)


@checks(r"choice_w(\d+)")
def choices(golden: GoldenSet, array: str, window: str) -> None:
    assert torch.equal(chosen_sizes(golden, int(window)), golden.array(array))


def test_settings_of_the_sizes(golden: GoldenSet) -> None:
    for window in golden.config["Ws"]:
        values = golden.values["anchor"][str(window)]
        sizes = released_sizes(window)
        assert sizes[:, 0].tolist() == sizes[:, 1].tolist() == values["sizes"]
        config = reference().search
        assert values["roi_kwargs"] == {
            "output_size": [config.network.roi_size] * 2,
            "spatial_scale": 0.125,
        }
        assert values["hard"] is True
        assert values["tau"] == config.training.temperature
        assert values["n_roi_calls"] == len(golden.images) * len(sizes)


def test_features_from_the_corner_alone(golden: GoldenSet) -> None:
    """Q4: with everything but the top left cells zeroed nothing changes."""
    assert golden.values["roi_topleft_probe"]["max_abs_diff_when_rest_zeroed"] == 0
    name = golden.config["Ws"][0]
    network, found = golden.network(name), window_of(golden, name)
    corner = torch.zeros_like(golden.projected[0])
    side = golden.grid // 8 + 1
    corner[:, :side, :side] = golden.projected[0, :, :side, :side]
    whole, part = (
        network.stacked(features, seen_of(golden, found))
        for features in (golden.projected[0], corner)
    )
    assert torch.equal(whole, part)


def seen_of(golden: GoldenSet, window: Window) -> RegionFeatures:
    tokens = golden.features.tokens[0, 1:]
    features = tokens.T.unflatten(1, (golden.grid, golden.grid))
    return RegionFeatures(features, golden.attention[0], window.cells[0], centred=False)
