"""EditInfinity with several drawings of an edit through the runner: CLIP chooses, all are shown."""

import json

import pytest

from farm.backbones.host import OperationHost
from farm.errors import InvalidPromptError, InvalidRequestError
from farm.methods.edit_infinity.work import planned_work
from farm.runner import load_output, run_edit
from tests.farm.test_runner_edit_infinity import models, picture, prepared
from tests.tiny_infinity import tiny_full_networks, write_tiny_full_set
from tests.tiny_sets import opened

__all__ = ["models"]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return opened(write_tiny_full_set, tmp_path_factory)


@pytest.fixture(scope="module")
def full_host():
    return OperationHost(tiny_full_networks())


def test_the_best_is_given_and_all_are_shown(full, full_host, store):
    result = run_edit(prepared(full, candidates=5, tau=2.0), store, full_host)
    said = json.loads(load_output(store, result, "candidates.json"))
    assert {one["drawing"] for one in said} == set(range(5))
    scores = [one["score"] for one in said]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx(
        [one["direction"] + one["text"] - one["structure"] for one in said]
    )
    assert picture(store, result, "candidates.png").shape == (3, 2 * 24, 4 * 24)
    # drawing n of more is drawing n of fewer: what is best of three follows from what was said
    best = min(range(3), key=lambda n: [one["drawing"] for one in said].index(n))
    three = run_edit(prepared(full, candidates=3, tau=2.0), store, full_host)
    assert json.loads(load_output(store, three, "candidates.json"))[0]["drawing"] == best
    same = picture(store, three).equal(picture(store, result))
    assert same == (best == said[0]["drawing"])


def test_without_weight_for_structure_the_words_alone_choose(full, full_host, store):
    result = run_edit(prepared(full, candidates=5, tau=2.0, structure_weight=0), store, full_host)
    said = json.loads(load_output(store, result, "candidates.json"))
    found = [one["score"] for one in said]
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx([one["direction"] + one["text"] for one in said])


def test_they_share_the_inversion_and_cost_what_is_planned(full, full_host, store):
    run_edit(prepared(full, candidates=1), store, full_host)
    more = run_edit(prepared(full, candidates=3), store, full_host)
    assert more.provenance.stages_made == []
    assert more.provenance.work == {
        "t5_forward": 1,
        "infinity_forward": 3 * 2,
        "bsq_decode": 3,
        "scorer_forward": 2 * (3 + 1),
        "scorer_text_forward": 2,
    }
    run = prepared(full, candidates=3).method
    assert planned_work(run.plan, run.config)["edit"] == more.provenance.work


def test_the_sources_noise_costs_a_pass_for_all_candidates(full, full_host, store):
    run_edit(prepared(full, candidates=3), store, full_host)
    more = run_edit(prepared(full, candidates=3, source_noise=True), store, full_host)
    assert more.provenance.stages_made == []
    assert more.provenance.work["t5_forward"] == 2, "of the target prompt and of the source prompt"
    assert more.provenance.work["infinity_forward"] == (3 + 1) * 2
    run = prepared(full, candidates=3, source_noise=True).method
    assert planned_work(run.plan, run.config)["edit"] == more.provenance.work


def test_one_candidate_asks_nobody(full, full_host, store):
    result = run_edit(prepared(full, candidates=1), store, full_host)
    assert not {"candidates.json", "candidates.png"} & result.files.keys()
    assert "scorer_forward" not in result.provenance.work


def test_the_scenes_choose_where_there_is_clip(full, models):
    assert prepared(full).method.config.editing.candidates == 8
    assert prepared(models).method.config.editing.candidates == 1


def test_without_clip_several_are_an_early_error(models):
    with pytest.raises(InvalidRequestError, match=r"has no CLIP to choose with.*set candidates"):
        prepared(models, candidates=2)


def test_a_prompt_too_long_for_clip_says_who_reads_it(full):
    long = " ".join(["a red cat on the grass"] + ["and a cat"] * 5)
    with pytest.raises(InvalidPromptError, match=r"CLIP, which chooses.*set candidates to 1"):
        prepared(full, target=long, use_concat_embedding=False)
    assert prepared(full, target=long, use_concat_embedding=False, candidates=1).method


def test_the_result_depends_on_who_chooses(full):
    depends = prepared(full, candidates=2).method.depends
    assert any(name.startswith("clip/") for name in depends["chooser"])
    assert "chooser" not in prepared(full, candidates=1).method.depends
    assert prepared(full, candidates=1).root == prepared(full, candidates=2).root
