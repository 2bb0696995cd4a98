"""The judge, the scores and the shipped networks, on held-out scenes."""

import json
import math

import pytest
import torch

from farm.zoo.evaluation import EditScore, as_json, summarise
from farm.zoo.judge import load_judge, read_object
from farm.zoo.model_sets import open_model_set
from farm.zoo.recipes.parts import PARTS
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import EDIT_TYPES
from farm.zoo.scoring import fidelity, is_success, judge_edit, score_region
from farm.zoo.weights import SCENES_FOLDER

SEED = 4242


@pytest.fixture(scope="module")
def judge():
    return load_judge(SCENES_FOLDER)


def test_the_judge_reads_every_attribute_of_renders(judge):
    scenes = sample_scenes(256, generator_for("heldout", SEED), split="heldout")
    drawn = render(scenes)
    reading = judge(drawn.images)
    found = read_object(reading, drawn.masks[:, 0])
    for name in ("shape", "colour", "pattern"):
        right = getattr(found, name) == getattr(scenes, name)[:, 0]
        assert right.float().mean() >= 0.97  # definitions.md
    assert (reading.background.argmax(1) == scenes.background).float().mean() >= 0.97


@pytest.mark.parametrize("kind", EDIT_TYPES)
def test_true_edits_succeed_and_pictures_left_alone_do_not(judge, kind):
    results = {"true": 0, "unedited": 0}
    for edit in sample_edits(24, SEED, (kind,)):
        truth = edit_truth(edit)
        for name, rendering in (("true", truth.target), ("unedited", truth.source)):
            picture = rendering.images[0]
            figures = fidelity(picture, truth.source.images[0], truth)
            results[name] += is_success(judge_edit(judge, picture, edit, truth), figures)
    assert results["true"] >= 23  # one of 24 may be misread
    assert results["unedited"] <= 1  # 5 %


def test_an_edit_that_spoils_the_background_is_no_success(judge):
    (edit,) = sample_edits(1, SEED, ("colour",))
    truth = edit_truth(edit)
    noise = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    spoilt = (truth.target.images[0] + 0.03 * noise * (1 - truth.region)).clamp(0, 1)
    # a bound of about 36 dB; the noise has 30.5
    slight = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(1))
    autoencoded = (truth.source.images[0] + 0.016 * slight).clamp(0, 1)
    judgement = judge_edit(judge, spoilt, edit, truth)
    assert judgement.asked
    assert judgement.kept
    assert not is_success(judgement, fidelity(spoilt, autoencoded, truth))


def test_the_true_mask_has_the_best_region_score():
    (edit,) = sample_edits(1, SEED, ("shape",))
    truth = edit_truth(edit)
    mask = (truth.region > 0.5).float()
    score = score_region(truth, mask, truth.region)
    assert (score.iou, score.pointing) == (1.0, 1.0)
    assert score_region(truth, 1 - mask, 1 - truth.region).iou < 0.1


def test_figures_are_means_with_intervals_and_failed_edits_count_as_not_done():
    common = {
        "held_out": False,
        "small": False,
        "objects": 1,
        "source_prompt": "a",
        "target_prompt": "b",
    }
    scores = [
        EditScore(
            "1", "colour", success=1.0, asked=1.0, outside_psnr=30.0, calls={"x": 2}, **common
        ),
        EditScore(
            "2", "colour", success=0.0, asked=1.0, outside_psnr=math.nan, calls={"x": 4}, **common
        ),
        EditScore("3", "shape", error="lost", **common),
    ]
    summary = summarise(scores, seed=0)
    assert summary["success"] == pytest.approx(1 / 3)
    assert summary["asked"] == pytest.approx(2 / 3)
    assert summary["outside_psnr"] == 30.0
    assert summary["failed"] == 1
    assert summary["calls"] == {"x": 3.0}
    assert summary["by_type"]["colour"]["asked"] == 1.0
    low, high = summary["intervals"]["asked"]
    assert low <= 2 / 3 <= high
    json.dumps([as_json(s) for s in scores], allow_nan=False)


def test_the_shipped_networks_are_those_of_the_digest_list():
    open_model_set("scenes").verify()


@pytest.mark.slow
def test_the_shipped_autoencoder_keeps_30_db():
    assert PARTS["vae"].measure(SCENES_FOLDER)["psnr"] >= 30
