"""Learnable Regions through the runner: its stages in the store, its outputs, its errors."""

import json

import pytest
import torch

from benchmarks.gpu.small import QUICK_REGIONS
from farm.errors import InvalidPromptError, InvalidRequestError
from farm.images import decode_image, encode_png
from farm.masks import decode_mask
from farm.requests import parse_request
from farm.runner import load_output, load_stage, prepare, run_edit
from farm.storage.opening import open_store
from tests.farm.interruptions import check_it_goes_on

PICTURE = encode_png(torch.rand(3, 24, 40, generator=torch.Generator().manual_seed(0)))
FULL = QUICK_REGIONS["num_steps"] * QUICK_REGIONS["finalists"]
"""Steps of the renders that the final choice is made of."""


def prepared(models, *, target="a blue ball", **parameters):
    fields = {
        "method": "learnable_regions",
        "image": "picture.png",
        "source_prompt": "a red ball",
        "target_prompt": target,
        "model_set": str(models.folder),
        "parameters": {**QUICK_REGIONS, **parameters},
    }
    return prepare(parse_request(fields), PICTURE, models)


def test_an_edit_keeps_every_pixel_outside_its_region_and_says_what_it_tried(models, host, store):
    result = run_edit(prepared(models, draw_box=True), store, host)
    edited = decode_image(load_output(store, result, "edited.png")).image
    original = decode_image(PICTURE).image
    mask = decode_mask(load_output(store, result, "mask.png"))
    outside = (mask == 0).expand_as(original)
    assert outside.any()
    assert torch.equal(edited[outside], original[outside])
    assert not torch.equal(edited, original)
    regions = json.loads(load_output(store, result, "regions.json"))
    assert len(regions["table"]) == 2
    assert len(regions["loss_curve"]) > 0
    left, top, right, bottom = regions["winner"]["box"]
    inside = torch.zeros(24, 40, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    assert not (mask.reshape(24, 40) > 0)[~inside].any()
    assert {"attention.png", "boxes.png", "loss.png"} <= set(result.files)


def test_stages_serve_other_edits_of_the_same_picture(models, host, store):
    first = run_edit(prepared(models), store, host)
    assert first.provenance.stages_made == ["analysis", "table", "search"]
    again = run_edit(prepared(models, test_alpha=5.0), store, host)
    assert again.provenance.stages_made == []
    other = run_edit(prepared(models, target="a green ball"), store, host)
    assert other.provenance.stages_made == ["table", "search"]
    assert "dino_forward" in first.provenance.work
    assert "dino_forward" not in other.provenance.work
    # who chooses by the table does not change it: only the search and its finalists cost anything
    argmin = run_edit(prepared(models, sizes="argmin", draws=1, test_gamma=0), store, host)
    assert argmin.provenance.stages_made == ["search"]
    assert argmin.provenance.work["unet_forward"] == 2 * FULL
    regions = [json.loads(load_output(store, r, "regions.json")) for r in (first, argmin)]
    assert regions[0]["table"] == regions[1]["table"]


def test_an_interrupted_search_goes_on_and_gives_the_same_bits(
    models, host, store, tmp_path, monkeypatch
):
    other = open_store(str(tmp_path / "other"))
    check_it_goes_on(prepared(models), host, store, other, monkeypatch)


@pytest.mark.parametrize("name", ["anchornet.safetensors", "search.safetensors"])
def test_a_trained_anchornet_starts_another_edit(models, host, store, tmp_path, name):
    edit = prepared(models)
    done = run_edit(edit, store, host)
    path = tmp_path / name
    if name in done.files:
        path.write_bytes(load_output(store, done, name))
    else:
        path.write_bytes(load_stage(store, "default", edit.stages["search"])[name])
    started = prepared(models, anchornet=str(path), train=False, target="a green ball")
    assert started.stages["analysis"] == edit.stages["analysis"]
    plain = prepared(models, target="a green ball")
    assert started.stages["search"] != plain.stages["search"]
    result = run_edit(started, store, host)
    assert result.provenance.stages_made == ["table", "search"]


def test_a_prompt_that_was_shortened_is_named_with_what_is_left(models, host, store):
    edit = prepared(models, target="a blue ball " * 20, long_prompt="truncate")
    regions = json.loads(load_output(store, run_edit(edit, store, host), "regions.json"))
    assert regions["shortened_prompts"].keys() == {"target_prompt"}
    left = regions["shortened_prompts"]["target_prompt"]
    assert ("a blue ball " * 20).startswith(left)
    assert 0 < len(left.split()) < 8  # the text encoder takes 8 tokens, two of them its own


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"anchornet": "nowhere.safetensors"}, InvalidRequestError, "nowhere"),
        ({"max_window_size": 99.0}, InvalidRequestError, "max_window_size"),
        ({"point_number": 0}, InvalidRequestError, "point_number"),
        ({"target": "a blue ball " * 20}, InvalidPromptError, "target_prompt: .*tokens"),
        ({"tau_c": 0.5}, InvalidRequestError, "parameters.tau_c: no such field"),
    ],
)
def test_a_wrong_request_is_refused_before_any_network(models, change, error, says):
    with pytest.raises(error, match=says):
        prepared(models, **change)
