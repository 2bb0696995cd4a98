"""Whole edits on tiny random networks."""

from dataclasses import replace

import pytest
import torch

from farm.errors import (
    CorruptArtifactError,
    EditDivergedError,
    InvalidPromptError,
    InvalidRequestError,
)
from farm.images import fit_to_model
from farm.methods.learnable_regions.analysed import Analysis
from farm.methods.learnable_regions.analysis import analyse
from farm.methods.learnable_regions.anchors import seen_cells
from farm.methods.learnable_regions.boxes import misfits
from farm.methods.learnable_regions.config import Quirks, reference
from farm.methods.learnable_regions.editing import edit
from farm.methods.learnable_regions.extent import thing_extent
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.methods.learnable_regions.plan import plan_prompts
from farm.methods.learnable_regions.search import search
from farm.methods.learnable_regions.searched import Search, SearchState, network_of
from farm.methods.learnable_regions.work import Drawn, full_renders, most_drawn, planned_work
from farm.regions import ImageScore
from tests.farm.methods.learnable_regions.runs import (
    CONFIG,
    SOURCE,
    TARGET,
    changed,
    metered_client,
    plain,
    whole,
)
from tests.stages import finish
from tests.tiny import tiny_tokenizer
from tests.tiny_regions import picture


@pytest.fixture(scope="module")
def run():
    return plain()


def equal(left, right):
    left, right = left.to_tensors(), right.to_tensors()
    same = left.keys() == right.keys()
    return same and all(torch.equal(left[n].nan_to_num(), right[n].nan_to_num()) for n in left)


def test_the_client_is_what_the_method_needs():
    assert isinstance(metered_client()[0], RegionBackbones)


# Work


CASES = {
    "trained": {},
    "argmin": {"search__chooser": "argmin"},
    "untrained": {"search__chooser": "untrained"},
    "random": {"search__chooser": "random"},
    "all": {"search__chooser": "all"},
    "all, every one in full": {"search__chooser": "all", "selection__rungs": ((4, 3),)},
    "gumbel": {"search__training__objective": "gumbel"},
    "reinforce": {"search__training__objective": "reinforce"},
    "ungrounded": {"search__anchors__grounding": 0.0},
    "contrast": {"search__anchors__contrast": 0.5},
    "contrast, of which nothing counts": {
        "search__anchors__contrast": 0.5,
        "search__anchors__grounding": 0.0,
    },
    "extent": {"search__anchors__extent": 0.5, "search__loss__delta": 1.0},
    "verdict": {"selection__test_gamma": 2.0, "selection__draws": 2},
    "verdict on one drawing": {"selection__test_gamma": 2.0},
    "verdict without guidance": {
        "selection__test_gamma": 2.0,
        "selection__draws": 2,
        "search__render__guidance_scale": 1.0,
    },
    "without guidance": {"search__render__guidance_scale": 1.0},
    "few at once": {"search__anchors__point_number": 5, "selection__rungs": ((3, 2),)},
    "three of each": {"selection__draws": 3, "selection__rungs": ((2, 2), (1, 3))},
    "three of each of few": {
        "search__anchors__point_number": 5,
        "selection__draws": 3,
        "selection__rungs": ((3, 2),),
    },
    "previews, then three of each": {
        "search__chooser": "untrained",
        "selection__draws": 3,
        "selection__rungs": ((1, 3),),
    },
    "nothing trained": {"search__quirks": Quirks(no_gradient=True).model_dump()},
}


@pytest.mark.parametrize("case", CASES)
def test_work_is_what_was_planned(case):
    """Acceptance 5 of the spec; the plan of what was drawn is met exactly, and the bound holds."""
    config = changed(**CASES[case])
    found = whole(config)
    assert found.work == planned_work(config, found.edit.drawn)
    bound = planned_work(config, most_drawn(config))
    if case == "reinforce":  # may draw a pair twice, and need not draw what it chooses
        assert (
            full_renders(config, found.edit.drawn) <= full_renders(config, most_drawn(config)) + 4
        )
    else:
        assert found.work == bound
    assert found.edit.figures["planned_unet_forward"] == found.work["unet_forward"]


def test_the_released_plan_s_renders():
    """Spec §8: 9 renders once the dead loop is left out; a pair of branches and 50 steps each."""
    drawn = most_drawn(reference())
    assert drawn == Drawn(table=0, ranked=0, rungs=((9, 50),), prepared=9)
    assert planned_work(reference(), drawn)["unet_forward"] == 2 * 50 * 9
    assert full_renders(reference(), drawn) == 9


def test_a_trained_network_costs_no_table(run):
    config = changed(search__train=False)
    found = whole(config, start=network_of(run.search.to_tensors()))
    assert found.edit.drawn.table == 0
    assert found.work == planned_work(config, most_drawn(config, has_start=True))
    assert torch.equal(found.search.after, run.search.after)
    assert found.search.curve.numel() == 0
    assert found.search.state.table.isnan().all()


# Training


def test_anchornet_is_trained_and_the_expected_loss_falls():
    config = changed(search__training__per_image_iteration=30)
    found = whole(config)
    figures = found.edit.figures
    assert figures["expected_loss_after"] < figures["expected_loss_before"]
    assert found.search.curve[0].item() == pytest.approx(figures["expected_loss_before"], abs=1e-6)
    assert found.search.curve.numel() == config.search.training.iterations
    assert not torch.equal(found.search.before, found.search.after)
    assert figures["least_loss"] <= figures["expected_loss_after"]


def test_with_q1_nothing_is_trained():
    found = whole(changed(search__quirks=Quirks(no_gradient=True).model_dump()))
    assert torch.equal(found.search.before, found.search.after)
    assert found.search.curve.numel() == 0


def test_a_given_network_is_trained_further(run):
    found = whole(start=network_of(run.search.to_tensors()))
    assert torch.equal(found.search.before, run.search.after)
    assert not torch.equal(found.search.after, run.search.after)


def test_a_network_of_other_sizes_is_refused(run):
    config = changed(search__anchors__max_window_size=3.0)
    with pytest.raises(InvalidRequestError, match="it has 2 sizes"):
        whole(config, start=network_of(run.search.to_tensors()))


# Choice


def test_argmin_takes_the_least_loss_of_each_anchor():
    found = whole(changed(search__chooser="argmin"))
    table = found.search.state.table
    assert found.search.chosen.tolist() == [[i, j] for i, j in enumerate(table.argmin(1).tolist())]


def test_trained_sizes_are_the_most_probable():
    found = plain()
    assert found.search.chosen[:, 1].tolist() == found.search.after.argmax(1).tolist()


def test_halving_keeps_the_least_losses():
    config = changed(search__chooser="all", selection__rungs=((2, 3), (1, 4)))
    found = whole(config)
    table = found.search.state.table  # empty: previews are drawn in the last stage
    assert table.isnan().all()
    first, second = [c for c in found.edit.candidates if c.steps >= 3]
    dropped = [c for c in found.edit.candidates if c.steps == 2]
    assert len(dropped) == 2
    assert first.steps == 4
    assert second.steps == 3
    assert first.final is not None
    assert second.final is None
    again = whole(changed(search__chooser="argmin"))
    previews = again.search.state.table  # the same drawings, from the same noise
    kept = {(first.region.anchor, first.region.size), (second.region.anchor, second.region.size)}
    least = {(n // 2, n % 2) for n in previews.flatten().topk(2, largest=False).indices.tolist()}
    assert kept == least


def test_the_winner_has_the_best_score():
    config = changed(selection__rungs=((2, 4),))
    candidates = whole(config).edit.candidates
    scores = [c.final for c in candidates]
    assert scores == sorted(scores, reverse=True)
    for c in candidates:
        expected = 2 * c.score.text + c.score.image
        assert c.final == pytest.approx(expected, abs=1e-6)


def test_more_draws_of_a_region_differ_and_leave_the_first_as_it_was():
    once = whole(changed(selection__rungs=((2, 4),))).edit.candidates
    thrice = whole(changed(selection__rungs=((2, 4),), selection__draws=3)).edit
    drawn = {c.region: c for c in thrice.candidates}
    assert set(drawn) == {replace(c.region, draw=n) for c in once for n in range(3)}
    for first in once:
        assert drawn[first.region].final == pytest.approx(first.final, abs=1e-6)
    assert len({c.score.text for c in thrice.candidates}) == 6  # from six noises
    assert thrice.candidates[0].final == max(c.final for c in thrice.candidates)
    assert thrice.figures["renders"] == 6


def test_losses_are_weighed():
    weights = {"search__loss__alpha": 0.5, "search__loss__beta": 2.0, "search__loss__gamma": 3.0}
    weights["search__loss__delta"] = 0.7
    for candidate in whole(changed(**weights)).edit.candidates:
        score = candidate.score
        expected = 0.5 * score.clip + 2 * score.directional + 3 * score.structure
        expected += 0.7 * score.misfit
        assert score.loss == pytest.approx(expected)


def test_regions_with_the_same_box_are_drawn_once():
    """All sizes of all anchors are cut off to the same few boxes."""
    config = changed(
        search__chooser="all",
        search__anchors__min_window_size=7.9,
        search__anchors__max_window_size=8.0,
        search__anchors__window_step=0.1,
        selection__rungs=((4, 2),),
    )
    found = whole(config)
    assert len(found.search.chosen) < 4
    boxes = [r.box for r in found.search.regions]
    assert len(set(boxes)) == len(boxes) == len(found.edit.candidates)
    assert found.work == planned_work(config, found.edit.drawn)


# Pictures


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 24), (30, 70)])
def test_outside_the_mask_every_bit_stays(height, width):
    image = picture(height, width)
    found = whole(image=image).edit
    assert found.image.shape == image.shape
    untouched = (found.mask == 0).expand_as(image)
    assert torch.equal(found.image[untouched], image[untouched])
    assert not torch.equal(found.image, image)
    assert untouched.any()
    box = found.box
    assert 0 <= box.left < box.right <= width
    assert 0 <= box.top < box.bottom <= height
    assert found.results[0].shape == (3, 16, 16)


def test_the_result_is_the_winner_s():
    found = plain().edit
    assert found.box == found.candidates[0].region.box
    region = found.mask[0, found.box.top : found.box.bottom, found.box.left : found.box.right]
    assert (region > 0).any()
    assert found.mask.sum() == pytest.approx(region.sum().item())


def test_the_results_shown_to_clip_are_the_finished_ones():
    image = picture(40, 24)
    found = whole(image=image).edit
    expected, _ = fit_to_model(found.image, 16, mode="pad")
    # borders of the region may move by less than a small pixel
    assert ((found.results[0] - expected).abs() > 0.1).any(0).float().mean() < 0.2


# Determinism and resuming


def test_the_same_edit_has_the_same_winner(run):
    client, _ = metered_client()
    before = torch.get_rng_state()
    prompts = plan_prompts(tiny_tokenizer(), SOURCE, TARGET, CONFIG)
    _, analysis = finish(analyse(picture(), prompts, client, CONFIG.analysis, seed=0))
    _, found = finish(search(picture(), analysis, prompts, client, CONFIG, seed=0))
    _, again = finish(edit(picture(), analysis, found, client, CONFIG, seed=0))
    assert torch.equal(torch.get_rng_state(), before)  # nothing global is drawn from
    assert equal(found, run.search)
    assert torch.equal(again.image, run.edit.image)
    assert again.candidates == run.edit.candidates


def test_another_seed_is_another_edit(run):
    other = whole(seed=1)
    assert torch.equal(other.search.state.anchors, run.search.state.anchors)
    assert not torch.equal(other.search.state.table, run.search.state.table)


@pytest.mark.parametrize("objective", ["expected", "reinforce"])
def test_how_many_are_drawn_at_once_changes_nothing(objective):
    few = changed(search__training__objective=objective, search__anchors__point_number=3)
    many = changed(few, search__batch_size=5)
    one, other = whole(few), whole(many)
    assert equal(one.search, other.search)
    assert torch.equal(one.edit.image, other.edit.image)


@pytest.mark.parametrize("objective", ["expected", "gumbel", "reinforce"])
def test_resumed_anywhere_the_search_is_the_same_to_the_last_bit(objective):
    config = changed(search__training__objective=objective)
    expected = whole(config)
    client, _ = metered_client()
    prompts = plan_prompts(tiny_tokenizer(), SOURCE, TARGET, config)
    states = [r.checkpoint for r in expected.reports if r.checkpoint is not None]
    assert len(states) > 1
    for state in states:
        stored = SearchState.from_tensors(state.to_tensors())
        analysis = Analysis.from_tensors(expected.analysis.to_tensors())
        _, found = finish(
            search(picture(), analysis, prompts, client, config, seed=0, checkpoint=stored)
        )
        assert equal(found, expected.search)


def test_artifacts_survive_their_storage(run):
    stored = Search.from_tensors(run.search.to_tensors())
    assert equal(stored, run.search)
    client, _ = metered_client()
    _, found = finish(edit(picture(), run.analysis, stored, client, CONFIG, seed=0))
    assert torch.equal(found.image, run.edit.image)


@pytest.mark.parametrize("kind", [Analysis, SearchState, Search])
def test_artifacts_with_something_missing_are_refused(run, kind):
    tensors = run.analysis.to_tensors() if kind is Analysis else run.search.to_tensors()
    name = next(iter(tensors))
    del tensors[name]
    with pytest.raises(CorruptArtifactError, match=f"no '{name}'"):
        kind.from_tensors(tensors)


def test_a_table_that_does_not_fit_its_boxes_is_refused(run):
    tensors = run.search.to_tensors() | {"table": torch.zeros(1, 1)}
    with pytest.raises(CorruptArtifactError, match=r"table of \(1, 1\)"):
        Search.from_tensors(tensors)


def test_progress_rises_to_its_total(run):
    for stage in ("analysis", "search", "editing"):
        reports = [r for r in run.reports if r.stage == f"learnable_regions.{stage}"]
        steps = [r.step for r in reports]
        assert steps == sorted(set(steps))
        assert steps[-1] == reports[-1].total
        assert len({r.total for r in reports}) == 1


# What is asked wrongly, and what goes wrong


def test_prompts_that_mean_the_same_to_clip_are_refused():
    with pytest.raises(InvalidPromptError, match="mean the same to CLIP"):
        whole(target="A  RED cat")  # the tokenizer knows no capitals


class _Diverging:
    """A client whose pictures are not."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        return getattr(self._client, name)

    def score_images(self, images, **kwargs):
        scores = self._client.score_images(images, **kwargs)
        return [ImageScore(s.embed, torch.full_like(s.tokens, torch.nan)) for s in scores]


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(run):
    client, _ = metered_client()
    prompts = plan_prompts(tiny_tokenizer(), SOURCE, TARGET, CONFIG)
    with pytest.raises(EditDivergedError, match=r"loss is nan.*guidance_scale"):
        finish(search(picture(), run.analysis, prompts, _Diverging(client), CONFIG, seed=0))


def test_analysis_asks_each_network_once():
    client, meter = metered_client()
    prompts = plan_prompts(tiny_tokenizer(), SOURCE, TARGET, CONFIG)
    _, analysis = finish(analyse(picture(20, 30), prompts, client, CONFIG.analysis, seed=0))
    assert meter.work == {
        "dino_forward": 1,
        "scorer_forward": 1 + CONFIG.analysis.num_views,
        "scorer_text_forward": 1,
    }
    assert analysis.features.shape == (12, 8, 8)
    assert analysis.attention.shape == (3, 8, 8)


def test_keys_instead_of_tokens():
    client, _ = metered_client()
    config = changed(analysis__features="keys")
    found = whole(config)
    image, _ = fit_to_model(picture(), 16, mode="pad")
    expected = client.dino(image, features="keys").features
    torch.testing.assert_close(found.analysis.features.flatten(1).T, expected)


# Verdicts


def test_a_verdict_decides_where_it_weighs_most():
    """With a great weight the winner is the drawing with the best verdict, told in its figures."""
    config = changed(
        selection__test_gamma=100.0, selection__draws=3, selection__rungs=((2, 2), (2, 3))
    )
    found = whole(config).edit
    said = [c.verdict for c in found.candidates if c.final is not None]
    assert len(said) == 6
    assert said == sorted(said, reverse=True)
    assert found.figures["verdict"] == said[0]
    assert len(set(said)) == 6


def test_without_weight_nobody_is_asked(run):
    assert all(candidate.verdict is None for candidate in run.edit.candidates)
    assert "verdict" not in run.edit.figures


def test_contrast_moves_where_anchors_lie(run):
    contrasted = whole(changed(search__anchors__contrast=1.0))
    assert not torch.equal(contrasted.search.state.saliency, run.search.state.saliency)
    ungrounded = {"search__anchors__grounding": 0.0}
    some, none = whole(changed(**ungrounded, search__anchors__contrast=1.0)), changed(**ungrounded)
    assert torch.equal(some.search.state.saliency, whole(none).search.state.saliency)


def test_regions_are_compared_with_the_extent_of_the_salient_thing(run):
    """Wholly, by half, and not at all; anchors stay where they are."""
    state = run.search.state
    _, placement = fit_to_model(picture(), 16, mode="pad")
    allowed = seen_cells(placement, 8)
    reach = thing_extent(run.analysis.features, state.saliency, allowed)
    wholly = whole(changed(search__anchors__extent=1.0)).search.state
    torch.testing.assert_close(wholly.misfits, misfits(state.cells, reach))
    assert torch.equal(wholly.anchors, state.anchors)
    focused = whole(changed(search__anchors__smoothing=CONFIG.search.anchors.focus)).search.state
    by_half = whole(changed(search__anchors__extent=0.5)).search.state
    expected = misfits(state.cells, (reach + focused.saliency) / 2)
    torch.testing.assert_close(by_half.misfits, expected)
    assert not torch.allclose(state.misfits, wholly.misfits)


def test_what_the_winner_left_as_it_was_is_the_original_s_own(run):
    """The search knows nothing of it, the mask is the region's; nothing changes by all there is."""
    image = picture()
    everything = whole(changed(selection__paste_threshold=1.0))
    assert torch.equal(everything.edit.image, image)
    assert torch.equal(everything.edit.mask, run.edit.mask)
    assert equal(everything.search, run.search)
    some = whole(changed(selection__paste_threshold=0.2)).edit.image
    assert not torch.equal(some, run.edit.image)
    between = (some - image).abs() <= (run.edit.image - image).abs() + 1e-6
    assert between.all()
