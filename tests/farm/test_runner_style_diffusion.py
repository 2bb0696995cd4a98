"""StyleDiffusion through the runner: grids, further targets, generated sources."""

import json
from pathlib import Path

import pytest
import torch

from farm.backbones.host import OperationHost
from farm.errors import InvalidImageError, InvalidPromptError, UnknownWordError
from farm.images import decode_image, encode_png
from farm.requests import parse_request
from farm.runner import load_output, prepare, read_image, run_edit
from farm.zoo.model_sets import open_model_set, write_manifest
from tests.tiny import (
    tiny_autoencoder,
    tiny_clip,
    tiny_networks,
    tiny_spec,
    tiny_unet,
    write_tiny_tokenizer,
)

PICTURE = encode_png(torch.rand(3, 24, 20, generator=torch.Generator().manual_seed(0)))
QUICK = {"num_steps": 3}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-set")
    tiny_unet().save_pretrained(folder / "unet")
    tiny_autoencoder().vae.save_pretrained(folder / "vae")
    tiny_clip().save_pretrained(folder / "clip")
    write_tiny_tokenizer(folder / "tokenizer")
    write_manifest(folder, tiny_spec(), defaults="scenes", licence="Apache-2.0", source="tests")
    return open_model_set(str(folder))


def prepared(models, *, image="picture.png", data=PICTURE, target="a blue ball", **parameters):
    fields = {
        "image": image,
        "source_prompt": "a red ball",
        "target_prompt": target,
        "model_set": str(models.folder),
        "parameters": ({} if "learned" in parameters else {"inner_steps": 1}) | QUICK | parameters,
    }
    return prepare(parse_request(fields), data, models)


def test_a_grid_with_a_further_target_is_one_result_of_many_pictures(models, store):
    edit = prepared(models, tau_s=[0.2, 1.0], further_targets=[{"target_prompt": "a green ball"}])
    result = run_edit(edit, store, OperationHost(tiny_networks()))
    listed = json.loads(load_output(store, result, "edits.json"))
    assert [(e["picture"], e["target_prompt"], e["tau_s"]) for e in listed] == [
        ("edited.png", "a blue ball", 0.2),
        ("edited_1.png", "a blue ball", 1.0),
        ("edited_2.png", "a green ball", 0.2),
        ("edited_3.png", "a green ball", 1.0),
    ]
    pictures = [load_output(store, result, entry["picture"]) for entry in listed]
    assert {decode_image(picture).image.shape for picture in pictures} == {(3, 24, 20)}
    assert {f"mask{n}.png" for n in ("", "_1", "_2", "_3")} <= set(result.files)
    assert listed[0]["figures"]["mask_share"] >= 0


def test_a_single_edit_has_no_list(models, store):
    result = run_edit(prepared(models), store, OperationHost(tiny_networks()))
    assert "edits.json" not in result.files
    assert "attention.png" in result.files


def test_what_nobody_asks_for_is_not_there(models, store):
    edit = prepared(models, local_blend=False, attention_map=False)
    result = run_edit(edit, store, OperationHost(tiny_networks()))
    assert not {"attention.png", "mask.png"} & set(result.files)


def test_a_generated_source_is_drawn_and_edited(models, store):
    edit = prepared(models, image="generated:", data=read_image("generated:", base=Path()))
    result = run_edit(edit, store, OperationHost(tiny_networks()))
    size = models.spec.image_size
    edited = decode_image(load_output(store, result, "edited.png")).image
    source = decode_image(load_output(store, result, "reconstruction.png")).image
    assert edited.shape == source.shape == (3, size, size)
    assert source.std() > 0.01  # not the empty frame
    assert "vae_encode" not in result.provenance.work


@pytest.mark.parametrize(
    "parameters",
    [{"training": "forced"}, {"training": "forced_polish"}, {"learned": "null_text"}],
)
def test_every_way_to_learn_is_a_stage_of_its_own(models, store, parameters):
    edit = prepared(models, **parameters)
    assert edit.stage_digest != prepared(models).stage_digest
    host = OperationHost(tiny_networks())
    assert not run_edit(edit, store, host).provenance.stage_reused
    again = run_edit(prepared(models, target="a green ball", **parameters), store, host)
    assert again.provenance.stage_reused


@pytest.mark.parametrize(
    ("parameters", "error", "says"),
    [
        ({"source_words": ["cat"]}, UnknownWordError, "'cat' is not in the prompt 'a red ball'"),
        ({"equalizer": {"cat": 2}}, UnknownWordError, "'cat' is not in the prompt 'a blue ball'"),
        ({"cross_windows": {"cat": 0.5}}, UnknownWordError, "'cat'"),
        ({"target_subtract": ["cat"]}, UnknownWordError, "'cat'"),
        ({"further_targets": [{"target_prompt": "a " * 9}]}, InvalidPromptError, "tokens"),
        (
            {"further_targets": [{"target_prompt": "a ball", "edit_type": "replace"}]},
            InvalidPromptError,
            "'red' became nothing.*edit_type 'refine' fits",
        ),
    ],
)
def test_words_are_checked_before_any_network(models, parameters, error, says):
    with pytest.raises(error, match=says):
        prepared(models, **parameters)


def test_a_picture_is_still_needed_where_none_is_generated(models):
    with pytest.raises(InvalidImageError):
        prepared(models, data=b"")
