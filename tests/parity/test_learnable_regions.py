"""Learnable Regions against the vectors of the released program (`--golden DIR`, README there).

Every array of the set is a test of its own: the check whose pattern fits its name. Tolerances
follow that README: integers exact; tokens, features and embeddings 1e-5; log-probabilities 1e-4;
losses 1e-5. Sizes and settings are read from the set.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from farm.backbones.scorer import ImageFeatures
from farm.losses.clip import clip_loss, directional_loss
from farm.losses.structure import self_similarity, structure_loss
from farm.masks import boxes_to_masks
from farm.methods.learnable_regions.anchor_net import RegionFeatures
from farm.methods.learnable_regions.anchors import cumulative_mass
from farm.methods.learnable_regions.boxes import cell_boxes, size_set
from farm.methods.learnable_regions.config import SelectionConfig, reference
from farm.methods.learnable_regions.selection import choose, final_scores
from farm.methods.learnable_regions.training import gumbel_choice, gumbel_noise
from tests.parity.regions_set import GoldenSet, Window, released_sizes
from tests.parity.released_views import apply_trace, released_trace

OWN = Path(__file__).parents[1] / "golden" / "learnable_regions"
ABSOLUTE = 1e-5
Check = Callable[..., None]
CHECKS: list[tuple[re.Pattern[str], Check]] = []


def set_folder(config: pytest.Config) -> Path:
    """The folder that was asked for; the option's default is another method's set."""
    given = Path(config.getoption("--golden"))
    return given if (given / "values.json").is_file() else OWN


@cache
def opened(folder: Path) -> GoldenSet:
    return GoldenSet(folder)


@cache
def window_of(golden: GoldenSet, name: int) -> Window:
    return golden.window(name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "array" in metafunc.fixturenames:
        folder = set_folder(metafunc.config)
        with np.load(folder / "arrays.npz") as arrays:
            metafunc.parametrize("array", arrays.files)


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest) -> GoldenSet:
    return opened(set_folder(request.config))


def checks(pattern: str) -> Callable[[Check], Check]:
    """Says which arrays a function checks; groups of the pattern are its further arguments."""

    def register(check: Check) -> Check:
        CHECKS.append((re.compile(pattern), check))
        return check

    return register


def close(found: Tensor, expected: Tensor, tolerance: float = ABSOLUTE) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def found_check(array: str) -> tuple[Check, tuple[str, ...]] | None:
    for pattern, check in CHECKS:
        match = pattern.fullmatch(array)
        if match is not None:
            return check, match.groups()
    return None


def test_array(golden: GoldenSet, array: str) -> None:
    found = found_check(array)
    assert found is not None, f"no check reads {array}"
    check, groups = found
    check(golden, array, *groups)


def test_no_array_and_no_check_is_idle(golden: GoldenSet) -> None:
    """Each array has a check, and no pattern is one that nothing fits."""
    assert [name for name in golden.arrays if found_check(name) is None] == []
    for pattern, _ in CHECKS:
        assert any(pattern.fullmatch(name) for name in golden.arrays), pattern.pattern


def test_every_weight_is_used(golden: GoldenSet) -> None:
    """Each is part of a network whose outputs are compared (strictly loaded)."""
    _ = golden.dino, golden.scorer
    for window in golden.config["Ws"]:
        golden.network(window)
    assert golden.used_weights == set(golden.weights)


# DINO


@checks("image_u8")
def images(golden: GoldenSet, array: str) -> None:
    """What goes in: their features are compared below; both matter to them."""
    assert golden.array(array).shape[-1] == 3
    first, second = golden.features.tokens[:2]
    assert not torch.allclose(first, second, atol=0.1)


@checks("dino_tokens_img0")
def dino_tokens(golden: GoldenSet, array: str) -> None:
    close(golden.features.tokens[0], golden.array(array))


@checks("attn_cls_heads")
def attention_of_heads(golden: GoldenSet, array: str) -> None:
    close(golden.features.attention, golden.array(array))


@checks("attn_mean")
def mean_attention(golden: GoldenSet, array: str) -> None:
    close(golden.attention.flatten(1), golden.array(array))


@checks("feat12")
def projected(golden: GoldenSet, array: str) -> None:
    close(golden.projected, golden.array(array))


# Anchors


@checks("th_attn_(dino|syn)")
def cumulative_maps(golden: GoldenSet, array: str, source: str) -> None:
    found = torch.stack([cumulative_mass(one) for one in scores_of(golden, source)])
    close(found, golden.array(array))


@checks("attn_syn")
def synthetic_maps(golden: GoldenSet, array: str) -> None:
    """What goes in: cells keep their order in the cumulative map, ties aside."""
    for one in golden.array(array):
        mass = cumulative_mass(one).flatten()
        values, order = one.flatten().sort()
        assert (mass[order].diff()[values.diff() > 0] >= 0).all()


@checks(r"points_(dino|syn)_w(\d+)_p(\d+)")
def anchors(golden: GoldenSet, array: str, source: str, window: str, count: str) -> None:
    found = golden.anchor_points(scores_of(golden, source), int(count), int(window))
    assert torch.equal(found, golden.array(array))


def scores_of(golden: GoldenSet, source: str) -> Tensor:
    """The stored maps: cells that differ by less than rounding must be ordered as there."""
    if source == "syn":
        return golden.array("attn_syn")
    return golden.array("attn_mean").unflatten(1, (golden.grid, golden.grid))


@checks(r"points_w(\d+)")
def anchors_in_use(golden: GoldenSet, array: str, window: str) -> None:
    assert torch.equal(window_of(golden, int(window)).points, golden.array(array))


# Boxes


@checks(r"bbox_cells_all_w(\d+)")
def all_boxes_in_cells(golden: GoldenSet, array: str, window: str) -> None:
    assert torch.equal(window_of(golden, int(window)).cells.flatten(0, 1), golden.array(array))


@checks(r"bbox_px_all_w(\d+)")
def all_boxes_in_pixels(golden: GoldenSet, array: str, window: str) -> None:
    found = golden.pixels(window_of(golden, int(window)).cells).flatten(0, 1)
    assert torch.equal(found.long(), golden.array(array))


@checks(r"bbox_cells_w(\d+)")
def chosen_boxes_in_cells(golden: GoldenSet, array: str, window: str) -> None:
    assert torch.equal(chosen_cells(golden, int(window)), golden.array(array))


@checks(r"bbox_px_w(\d+)")
def chosen_boxes_in_pixels(golden: GoldenSet, array: str, window: str) -> None:
    found = golden.pixels(chosen_cells(golden, int(window)))
    assert torch.equal(found.long(), golden.array(array))


def chosen_cells(golden: GoldenSet, window: int) -> Tensor:
    found = window_of(golden, window)
    choice = chosen_sizes(golden, window)
    return found.cells.flatten(0, 1)[torch.arange(len(choice)), choice]


@checks(r"mask(256|512|64)_bits_w(\d+)")
def masks(golden: GoldenSet, array: str, size: str, window: str) -> None:
    """Twice as large by bilinear resizing and a threshold; then every eighth pixel (spec §1.8)."""
    pixels = golden.pixels(chosen_cells(golden, int(window)))
    side = golden.image_size
    mask = boxes_to_masks(pixels, side, side)
    if int(size) != side:
        mask = F.interpolate(mask, scale_factor=2, mode="bilinear")
        levels = golden.values["anchor"][window]["mask512_raw_levels"]
        assert mask.unique().tolist() == levels
        mask = (mask >= 0.5).float()
        assert golden.values["anchor"][window]["mask512_equals_nearest2x"]
    if int(size) < side:
        mask = F.interpolate(mask, (int(size), int(size)), mode="nearest")
    found = np.packbits(mask[:, 0].bool().numpy(), axis=-1)
    assert np.array_equal(found, golden.arrays[array])


# AnchorNet


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


def chosen_sizes(golden: GoldenSet, window: int) -> Tensor:
    noise = golden.array(f"gumbel_w{window}")
    return gumbel_choice(window_of(golden, window).log_probs, noise)


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


def test_transposition(golden: GoldenSet) -> None:
    """Q2 as its probe shows it, and boxes where the attention is without the quirk."""
    probe = golden.values["transpose_probe"]
    row, column = probe["attention_peak_row_col"]
    anchor = torch.tensor([[row, column]])
    sizes = size_set(reference().search.anchors)[:1]
    centres = {}
    for mirrored in (True, False):
        cells = cell_boxes(anchor, sizes, golden.grid, released=True, mirrored=mirrored)
        left, top, right, bottom = golden.pixels(cells)[0, 0].tolist()
        centres[mirrored] = ((top + bottom - 1) / 2, (left + right - 1) / 2)
    assert centres[True] == (probe["mask_row_centre_px"], probe["mask_col_centre_px"])
    wanted = (probe["expected_row_px_if_untransposed"], probe["expected_col_px_if_untransposed"])
    # rounding up to whole pixels moves a centre by less than one
    assert centres[False] == pytest.approx(wanted, abs=1)


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


# CLIP


@checks("text_tokens|text_embeddings")
def texts(golden: GoldenSet, array: str) -> None:
    with torch.no_grad():
        found = golden.scorer.embed_text(golden.array("text_tokens"))
    close(found, golden.array("text_embeddings"))


@checks("result_u8|emb_noaug_res_(official|unit)_(aa|noaa)")
def results(golden: GoldenSet, array: str, scale: str | None, mode: str | None) -> None:
    if scale is None or mode is None:  # the pictures themselves: any of their embeddings
        array, scale, mode = "emb_noaug_res_unit_aa", "unit", "aa"
    close(features_of(golden, scale, mode).embeds, golden.array(array))


@checks("emb_noaug_src_(aa|noaa)")
def sources(golden: GoldenSet, array: str, mode: str) -> None:
    close(source_of(golden, mode).embeds, golden.array(array))


@checks("selfsim_src_antialias")
def source_similarity(golden: GoldenSet, array: str) -> None:
    close(self_similarity(source_of(golden, "aa").before_last[0]), golden.array(array))


@checks("selfsim_res0_corner_(official|unit)_(aa|noaa)")
def result_similarity(golden: GoldenSet, array: str, scale: str, mode: str) -> None:
    expected = golden.array(array)
    found = self_similarity(features_of(golden, scale, mode).before_last[0])
    close(found[: len(expected), : len(expected)], expected)


def features_of(golden: GoldenSet, scale: str, mode: str) -> ImageFeatures:
    """CLIP's features of the results; "official" leaves them at 0 to 255 (Q6)."""
    factor = 255.0 if scale == "official" else 1.0
    with torch.no_grad():
        return golden.scorer(golden.scorer.resized(factor * golden.results, antialias=mode == "aa"))


def source_of(golden: GoldenSet, mode: str) -> ImageFeatures:
    with torch.no_grad():
        return golden.scorer(golden.scorer.resized(golden.images[:1], antialias=mode == "aa"))


@pytest.mark.parametrize("scale", ["official", "unit"])
@pytest.mark.parametrize("antialias", [True, False])
def test_losses_without_views(golden: GoldenSet, scale: str, antialias: bool) -> None:
    values = golden.values["losses"][f"antialias={antialias}|scale={scale}"]
    mode = "aa" if antialias else "noaa"
    found, source = features_of(golden, scale, mode), source_of(golden, mode)
    each = structure_loss(found.before_last, source.before_last[0])
    target, caption = golden.array("text_embeddings")
    clip = clip_loss(found.embeds[:, None], target)
    directional = directional_loss(found.embeds[:, None], source.embeds, target - caption)
    approx = {"abs": ABSOLUTE, "rel": 0}
    assert each.tolist() == pytest.approx(values["structure_each"], **approx)
    assert each.mean().item() == pytest.approx(values["structure"], **approx)
    assert clip.mean().item() == pytest.approx(values["clip_noaug"], **approx)
    assert directional.mean().item() == pytest.approx(values["dir_noaug"], **approx)


# Views


@checks("emb_16views_res0_unit_aa")
def views(golden: GoldenSet, array: str) -> None:
    (trace,) = golden.values["trace"].values()
    pictures = apply_trace(golden.results[:1], trace)
    with torch.no_grad():
        found = golden.scorer(pictures).embeds
    close(found, golden.array(array))
    target = golden.array("text_embeddings")[0]
    expected = golden.values["losses"]["clip_16views_res0_unit"]
    assert clip_loss(found, target).item() == pytest.approx(expected, abs=ABSOLUTE)


@pytest.mark.parametrize("scale", ["official", "unit"])
def test_losses_under_the_published_run_s_own_views(golden: GoldenSet, scale: str) -> None:
    """All random numbers follow from the stored seed, as long as this torch draws as that one did.

    The program draws one number for its choice of texts before each of the two losses, then a
    result's views one result after the other; for the direction the source's come before each
    result's.
    """
    values = golden.values["losses"][f"full_get_loss|antialias=True|scale={scale}"]
    factor = 255.0 if scale == "official" else 1.0  # Q6
    generator = torch.Generator().manual_seed(values["seed"])
    target, caption = golden.array("text_embeddings")
    results = (factor * golden.results).split(1)
    torch.rand(1, generator=generator)
    clip = [clip_loss(drawn_views(golden, image, generator), target) for image in results]
    torch.rand(1, generator=generator)
    directional: list[Tensor] = []
    for image in results:
        before = drawn_views(golden, golden.images[:1], generator)
        after = drawn_views(golden, image, generator)
        directional.append(directional_loss(after, before, target - caption))
    source = source_of(golden, "aa").before_last[0]
    structure = structure_loss(features_of(golden, scale, "aa").before_last, source)
    found = [torch.stack(clip).mean(), torch.stack(directional).mean(), structure.mean()]
    expected = [values["clip"], values["directional"], values["structure"]]
    assert [one.item() for one in found] == pytest.approx(expected, abs=ABSOLUTE)
    assert sum(found).item() == pytest.approx(values["total"], abs=3 * ABSOLUTE)


def drawn_views(golden: GoldenSet, image: Tensor, generator: torch.Generator) -> Tensor:
    config = reference().analysis
    height, width = image.shape[-2:]
    trace = released_trace(height, width, config.num_views, golden.scorer.size, generator)
    with torch.no_grad():
        return golden.scorer(apply_trace(image, trace)).embeds


def test_the_stored_trace_follows_from_its_seed(golden: GoldenSet) -> None:
    ((name, trace),) = golden.values["trace"].items()
    seed = re.search(r"seed(\d+)", name)
    assert seed is not None
    count = len(golden.array("emb_16views_res0_unit_aa"))
    height, width = golden.results.shape[-2:]
    generator = torch.Generator().manual_seed(int(seed[1]))
    drawn = released_trace(height, width, count, golden.scorer.size, generator)
    assert drawn == trace


# Selection


@checks(r"sel(\d+)_(img|src|txt)")
def selections(golden: GoldenSet, array: str, number: str, kind: str) -> None:
    del array, kind  # all three make one case
    case = golden.values["selection"][int(number)]
    image, source, text = (golden.array(f"sel{number}_{k}") for k in ("img", "src", "txt"))
    config = SelectionConfig(
        test_alpha=case["alpha"], test_beta=case["beta"], rule=reference().selection.rule
    )
    near, like = F.cosine_similarity(image, text), F.cosine_similarity(image, source)
    scores = final_scores(near, like, config)
    assert scores.tolist() == pytest.approx(case["score"], abs=ABSOLUTE)
    assert choose(near, like, config) == case["chosen"]
    assert (int(scores.argmax()) != case["chosen"]) == case["top3_rule_changed_choice"]
