"""The choice of a method through the runner: trials that others find, the edit, what it says."""

import json

import pytest
import torch

from benchmarks.gpu.small import QUICK_REGIONS
from farm.errors import (
    BudgetExceededError,
    EditDivergedError,
    EditFailedError,
    InvalidRequestError,
)
from farm.images import decode_image, encode_png
from farm.requests import parse_request
from farm.runner import load_output, load_result, prepare, run_edit
from farm.runner.auto import RESULT, changed_source_words, nested_ids, with_nested
from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from tests.tiny import write_tiny_set

PICTURE = encode_png(torch.rand(3, 24, 40, generator=torch.Generator().manual_seed(0)))
DIFFUSION = {"num_steps": 2, "inner_steps": 2}
REGIONS = {**QUICK_REGIONS, "finalists": 2}
SETTINGS = {"style_diffusion": DIFFUSION, "learnable_regions": REGIONS}


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def asked(models, method="auto", **parameters):
    fields = {
        "method": method,
        "image": "picture.png",
        "source_prompt": "a red ball",
        "target_prompt": "a blue ball",
        "model_set": str(models.folder),
        "parameters": parameters,
    }
    return prepare(parse_request(fields), PICTURE, models)


class Failing:
    """A host whose inpainting diverges."""

    def __init__(self, host, op):
        self.host, self.op = host, op

    def run_all(self, calls):
        if any(call.op.startswith(self.op) for call in calls):
            raise EditDivergedError("a loss is nan: take another seed")
        return self.host.run_all(calls)


def told_of(store, result):
    return json.loads(load_output(store, result, RESULT))


@pytest.fixture(scope="module")
def chosen(models, host, tmp_path_factory):
    """A choice among two methods: the store, the result, what was reported."""
    store, reports = open_store(str(tmp_path_factory.mktemp("chosen"))), []
    result = run_edit(asked(models, settings=SETTINGS), store, host, report=reports.append)
    return store, result, reports


def test_the_best_of_the_trials_does_the_edit_and_the_others_are_said(models, chosen):
    store, result, reports = chosen
    told = told_of(store, result)
    assert set(told["tried"]) == set(SETTINGS)
    best = max(told["tried"], key=lambda name: told["tried"][name]["score"])
    assert told["chosen"] == best
    assert told["runners_up"] == [name for name in SETTINGS if name != best]
    assert told["reasons"][0].startswith(f"{best} before {told['runners_up'][0]} by ")
    assert set(told["refused"]) == {"edit_infinity"}
    # the picture is that of the method's own edit, which anybody else finds too
    alone = load_result(store, "default", told["edit_id"])
    own = asked(models, best, **SETTINGS[best])
    assert alone.edit_id == own.edit_id
    for name in alone.files:
        if name != "metrics.json":
            assert load_output(store, alone, name) == load_output(store, result, name)
    figures = json.loads(load_output(store, result, "metrics.json"))
    expected = json.loads(load_output(store, alone, "metrics.json"))
    assert {n: v for n, v in figures.items() if n != "provenance"} == {
        n: v for n, v in expected.items() if n != "provenance"
    }
    stages = {report.stage.partition(".")[0] for report in reports}
    assert {"style_diffusion", "learnable_regions", "auto"} <= stages
    spent = result.provenance.accelerator_seconds
    assert spent >= sum(tried["accelerator_seconds"] for tried in told["tried"].values())


def test_what_was_tried_is_reused(models, host, chosen):
    store, auto, _ = chosen
    regions = run_edit(asked(models, "learnable_regions", **REGIONS), store, host)
    # its own edit, or the trial: the table of losses was there
    assert "table" not in regions.provenance.stages_made or regions.reused
    assert "try.learnable_regions.table" in auto.provenance.stages
    again = run_edit(asked(models, settings=SETTINGS, text_weight=2.0), store, host)
    assert again.edit_id != auto.edit_id
    assert not any(name.startswith("try.") for name in again.provenance.stages_made)
    assert run_edit(asked(models, settings=SETTINGS), store, host).reused


def test_weights_decide(models, host, chosen):
    store, *_ = chosen
    edits = [
        run_edit(asked(models, settings=SETTINGS, effort="full", **weights), store, host)
        for weights in (
            {"text_weight": 1, "background_weight": 0, "structure_weight": 0},
            {"text_weight": 0, "background_weight": 0, "structure_weight": 1},
        )
    ]
    for edit, figure in zip(edits, ("text", "structure"), strict=True):
        told = told_of(store, edit)
        values = {name: tried[figure] for name, tried in told["tried"].items()}
        assert values[told["chosen"]] == max(values.values())
        # in full effort what was tried is what is done
        assert told["tried"][told["chosen"]]["edit_id"] == told["edit_id"]


def test_a_trial_draws_once_whatever_the_edit_does():
    """CLIP ranks the trials; what CLIP has chosen among many drawings it would rank too well."""
    settings = {"edit_infinity": {"candidates": 16}, "learnable_regions": {"draws": 3}}
    run = asked(open_model_set("scenes"), settings=settings).method
    trials = {one.method: one.trial.request.parameters for one in run.candidates}
    fulls = {one.method: one.full.request.parameters for one in run.candidates}
    assert trials["edit_infinity"].candidates == 1
    assert (trials["learnable_regions"].finalists, trials["learnable_regions"].draws) == (1, 1)
    assert fulls["edit_infinity"].candidates == 16
    assert fulls["learnable_regions"].draws == 3


def test_a_method_that_fails_leaves_the_choice_to_the_others(models, host, store):
    result = run_edit(asked(models, settings=SETTINGS), store, Failing(host, "inpainting"))
    told = told_of(store, result)
    assert told["chosen"] == "style_diffusion"
    assert "a loss is nan" in told["refused"]["learnable_regions"]
    only = asked(models, methods=["learnable_regions"], settings=SETTINGS)
    with pytest.raises(EditFailedError, match=r"no method could do the edit.*a loss is nan"):
        run_edit(only, store, Failing(host, "inpainting"))


def test_a_budget_holds_for_all_of_it(models, host, store):
    with pytest.raises(BudgetExceededError):
        run_edit(asked(models, settings=SETTINGS), store, host, budget=1e-6)


def test_one_method_is_not_compared_with_itself(models, host, store):
    edit = asked(models, methods=["style_diffusion"], settings=SETTINGS)
    result = run_edit(edit, store, host)
    told = told_of(store, result)
    assert (told["tried"], told["runners_up"]) == ({}, [])
    assert told["reasons"] == ["style_diffusion is the only method that could be tried"]
    image = decode_image(load_output(store, result, "edited.png")).image
    assert image.shape == (3, 24, 40)


def test_without_a_method_or_without_what_ranks_them_it_is_refused(models, tmp_path):
    with pytest.raises(InvalidRequestError, match=r"has no method for this edit.*edit_infinity"):
        asked(models, methods=["edit_infinity"])
    with pytest.raises(InvalidRequestError, match="inner_steps"):
        asked(models, methods=["style_diffusion"], settings={"style_diffusion": {"inner_steps": 0}})
    with pytest.raises(InvalidRequestError, match="name each method to choose from once"):
        asked(models, methods=[])
    folder = tmp_path / "plain"
    write_tiny_set(folder)
    plain = open_model_set(str(folder))
    # one method alone needs no ranking
    assert [c.method for c in asked(plain).method.candidates] == ["style_diffusion"]


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a red ball on sand", "a blue ball on sand", "red"),
        ("a big red ball", "a green ball", "big red"),
        ("a ball", "a ball on sand", None),
        ("a ball on sand", "a ball", "on sand"),
    ],
)
def test_words_of_the_source_that_change(source, target, words):
    assert changed_source_words(source, target) == words


def test_a_choice_names_every_edit_that_it_did(models, chosen):
    store, result, _ = chosen
    named = nested_ids(load_output(store, result, RESULT))
    planned = {each.edit_id for each in with_nested(asked(models, settings=SETTINGS))}
    assert len(set(named)) == len(SETTINGS) + 1  # a trial of each, and the edit in full
    assert {*named, result.edit_id} <= planned
    assert all(load_result(store, "default", name) is not None for name in named)
