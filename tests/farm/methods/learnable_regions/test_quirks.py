"""What the released program does and the paper does not say, each alone, on tiny networks."""

import pytest
import torch

from farm.masks import Box
from farm.methods.learnable_regions.config import Quirks, reference
from farm.methods.learnable_regions.work import planned_work
from tests.farm.methods.learnable_regions.runs import CONFIG, changed, plain, whole
from tests.tiny_regions import picture


def quirky(name, **places):
    quirks = Quirks(**{name: True}).model_dump()
    return whole(changed(analysis__quirks=quirks, search__quirks=quirks, **places))


def test_mirrored_boxes():
    """Q2: every box is about the diagonal, and so is the edit."""
    found, usual = quirky("mirrored_boxes").search.state, plain().search.state
    assert torch.equal(found.anchors, usual.anchors)
    assert torch.equal(found.boxes, usual.boxes[..., [1, 0, 3, 2]])


@pytest.mark.parametrize("name", ["scrambled_roi", "corner_roi"])
def test_scrambled_and_corner_features_change_probabilities_alone(name):
    """Q3, Q4."""
    found, usual = quirky(name).search, plain().search
    assert torch.equal(found.state.boxes, usual.state.boxes)
    assert torch.equal(found.state.table, usual.state.table)
    assert not torch.equal(found.before, usual.before)


def test_an_unsaved_projection():
    """Q5."""
    assert not any(n.startswith("projection") for n in quirky("unsaved_projection").search.network)


def test_unscaled_results():
    """Q6: the table is of other pictures."""
    found, usual = quirky("unscaled_results"), plain()
    assert not torch.allclose(found.search.state.table, usual.search.state.table, atol=1e-3)
    assert torch.equal(found.analysis.views, usual.analysis.views)  # the source stays


def test_unscaled_results_leave_the_final_rule_as_it_is():
    """Q6 is in the losses: the rule asks CLIP about the pictures themselves (spec §5)."""
    found, usual = (
        whole(
            changed(
                search__quirks=Quirks(unscaled_results=quirk).model_dump(),
                search__chooser="all",
                selection__rungs=((4, 3),),
            )
        )
        for quirk in (True, False)
    )
    by_region = {c.region: c.score for c in usual.edit.candidates}
    for candidate in found.edit.candidates:
        expected = by_region[candidate.region]
        assert candidate.score.text == pytest.approx(expected.text, abs=1e-5)
        assert candidate.score.image == pytest.approx(expected.image, abs=1e-5)
        assert candidate.score.clip != pytest.approx(expected.clip, abs=1e-3)


def test_sampled_inference():
    """Q7: noise is that of seed 0 for every seed, and sizes are drawn."""
    places = {"search__chooser": "untrained", "search__anchors__point_number": 9}
    config = changed(search__quirks=Quirks(sampled_inference=True).model_dump(), **places)
    sizes = [whole(config, seed=seed).search.chosen[:, 1].tolist() for seed in (0, 1)]
    assert sizes[0] != sizes[1]
    assert all(len(set(s)) > 1 for s in sizes)


def test_the_border_rule():
    """Q8: of 8 cells a side, windows of 3 leave the four in the middle."""
    found = quirky(
        "border_rule", search__anchors__max_window_size=3.0, search__anchors__point_number=4
    )
    anchors = {tuple(a) for a in found.search.state.anchors.tolist()}
    assert anchors == {(3, 3), (3, 4), (4, 3), (4, 4)}


def test_the_released_schedule():
    """Q9: ten iterations with accum_grad 25 are one optimiser step."""
    places = {"search__training__accum_grad": 25}
    found = quirky("released_schedule", **places)
    assert len(set(found.search.curve.tolist())) == 2  # before the step and after


def test_a_bare_caption():
    """Q9."""
    found, usual = quirky("bare_caption"), plain()
    assert not torch.equal(found.analysis.text, usual.analysis.text)
    assert torch.equal(found.search.state.target, usual.search.state.target)


def test_raw_dino_pixels():
    """Q9."""
    found, usual = quirky("raw_dino_pixels").analysis, plain().analysis
    assert not torch.equal(found.features, usual.features)
    assert torch.equal(found.tokens, usual.tokens)


def test_the_released_program_as_a_whole():
    """Its arrangement on a small grid: P renders, sizes drawn, everything replaced."""
    config = reference().model_dump()
    config["search"]["anchors"] |= {
        "point_number": 3,
        "min_window_size": 1.0,
        "max_window_size": 3.0,
        "window_step": 1.0,
    }
    config["analysis"] |= {"template": "a picture of {}", "num_views": 2}
    config["selection"]["rungs"] = ((3, 4),)
    config = type(CONFIG).model_validate(config)
    image = picture(16, 24)
    found = whole(config, image=image)
    assert found.work == planned_work(config, found.edit.drawn)
    assert found.edit.drawn.table == 0
    assert torch.equal(found.edit.image[:, :, :4], image[:, :, :4])  # what the crop left out
    assert (found.edit.mask[0, :, 4:20] == 1).all()
    assert isinstance(found.edit.box, Box)
