"""EditInfinity through the runner: its stages in the store, what a second edit costs, errors."""

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load as load_tensors

from farm.backbones.host import OperationHost
from farm.errors import (
    InvalidImageError,
    InvalidPromptError,
    InvalidRequestError,
    ModelSetError,
    UnknownWordError,
)
from farm.images import decode_image, encode_png
from farm.masks import decode_mask
from farm.requests import parse_request
from farm.runner import load_output, prepare, read_mask, run_edit
from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from tests.farm.interruptions import check_it_goes_on
from tests.inline import LostAfter
from tests.tiny import write_tiny_set
from tests.tiny_infinity import tiny_transformer, tiny_whole_networks, write_tiny_whole_set
from tests.tiny_sets import opened

HEIGHT, WIDTH = 24, 40
PICTURE = encode_png(torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)))
SOURCE, TARGET = "a red cat on the grass", "a blue cat on the grass"
QUICK = {
    "train_textembedding_iter": 4,
    "train_lora_iter": 4,
    "prompt_rows": 2,
    "lora_r": 2,
    "save_every": 2,
    "learning_rate": 0.05,
}
ALL = ["codes", "prompt", "lora", "attention"]


def drawn_mask(height=HEIGHT, width=WIDTH):
    mask = torch.zeros(1, height, width)
    mask[:, :12, :20] = 1
    return encode_png(mask)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return opened(write_tiny_whole_set, tmp_path_factory)


@pytest.fixture(scope="module")
def host():
    return OperationHost(tiny_whole_networks())


def prepared(models, *, word="cat", target=TARGET, mask=None, fields=(), **parameters):
    request = {
        "method": "edit_infinity",
        "image": "picture.png",
        "source_prompt": SOURCE,
        "target_prompt": target,
        "target_word": word,
        "model_set": str(models.folder),
        "mask": None if mask is None else "mask.png",
        "parameters": QUICK | parameters,
        **dict(fields),
    }
    return prepare(parse_request(request), PICTURE, models, mask=mask)


def picture(store, result, name="edited.png"):
    return decode_image(load_output(store, result, name)).image


def test_an_edit_leaves_all_that_the_examples_leave(models, host, store, tmp_path):
    result = run_edit(prepared(models), store, host)
    assert result.provenance.stages_made == ALL
    for name in ("edited.png", "mask.png", "attention.png", "reconstruction.png"):
        assert picture(store, result, name).shape[-2:] == (HEIGHT, WIDTH)
    assert "attention_analysis.png" in result.files
    tensors = load_tensors(load_output(store, result, "weight_tensor.safetensors"))
    assert tensors["weight"].shape == (4, 4)
    assert tensors["attention_map"].shape == (64, 64)
    rows = load_tensors(load_output(store, result, "learned_prompt.safetensors"))["rows"]
    assert rows.shape == (2, 16)
    figures = json.loads(load_output(store, result, "metrics.json"))
    assert {"bit_accuracy_before", "bit_accuracy_prompt", "bit_accuracy_lora"} <= figures.keys()
    assert figures["reconstruction_psnr"] > 0


def test_its_adapters_are_loaded_by_peft(models, host, store, tmp_path):
    result = run_edit(prepared(models), store, host)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / name).write_bytes(load_output(store, result, name))
    model = peft.PeftModel.from_pretrained(tiny_transformer(), str(tmp_path))
    stored = load_tensors((tmp_path / "adapter_model.safetensors").read_bytes())
    loaded = {n.replace(".default", ""): p for n, p in model.named_parameters() if "lora_" in n}
    assert loaded.keys() == stored.keys()
    assert len(stored) == 8
    for name, value in stored.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)


def test_a_second_edit_of_the_picture_costs_its_own_passes_alone(models, host, store):
    first = run_edit(prepared(models), store, host)
    assert first.provenance.work == {
        "bsq_decode": 2,
        "bsq_encode": 1,
        "infinity_backward": 8,
        "infinity_forward": (4 + 2) + (4 + 1) + 1 + 2,
        "t5_forward": 4,
    }
    second = run_edit(prepared(models, target="a blue dog on the grass"), store, host)
    assert second.provenance.stages_made == []
    only = {"t5_forward": 1, "infinity_forward": 2, "bsq_decode": 1}
    assert second.provenance.work == only
    other_word = run_edit(prepared(models, word="grass"), store, host)
    assert other_word.provenance.stages_made == ["attention"]
    switched = {"train_textembedding": False, "train_lora": False}
    untrained = run_edit(prepared(models, tau=0.7, **switched), store, host)
    assert untrained.provenance.stages_made == [], "a switch of training is no other training"
    drawn = run_edit(prepared(models, mask=drawn_mask()), store, host)
    assert drawn.provenance.stages_made == []
    assert drawn.provenance.work == only


def test_what_is_asked_for_and_was_never_trained_is_an_early_error(models, host, store):
    run_edit(prepared(models), store, host)
    asked = prepared(models, train_lora=False, train_lora_iter=8)
    counting = LostAfter(host, 10_000)
    with pytest.raises(InvalidRequestError, match=r"train_lora_iter 8.*there are: 4\. Set"):
        run_edit(asked, store, counting)
    assert counting.left == 10_000, "no network was asked"
    with pytest.raises(InvalidRequestError, match=r"use_lora_iter is 3.*iterations 2, 4"):
        prepared(models, use_lora_iter=3)
    later = run_edit(prepared(models, use_lora_iter=2), store, host)
    assert later.provenance.stages_made == []


def test_what_lies_outside_a_mask_stays_to_the_bit(models, host, store):
    result = run_edit(prepared(models, word=None, mask=drawn_mask()), store, host)
    edited, original = picture(store, result), decode_image(PICTURE).image
    far = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    far[:, 32:] = True  # beyond the ramp, and beyond what a 16 x 16 picture of the middle shows
    assert torch.equal(edited[:, far], original[:, far])
    assert not torch.equal(edited, original)
    mask = decode_mask(load_output(store, result, "mask.png"))[0]
    assert mask[2:10, 10:18].all()
    assert not mask[14:, 22:].any()


def test_masks_count_by_their_bytes_and_colour(models):
    one = prepared(models, word=None, mask=drawn_mask())
    painted = 1 - decode_mask(drawn_mask())
    black = prepared(models, word=None, mask=encode_png(painted), fields={"mask_edits": "black"})
    assert torch.equal(one.method.region.weight, black.method.region.weight)
    ids = {
        edit.edit_id
        for edit in (
            one,
            black,
            prepared(models, word=None, mask=encode_png(painted)),
            prepared(models, word=None),
            prepared(models),
        )
    }
    assert len(ids) == 5
    assert one.stages == black.stages


def test_the_four_ways_to_use_an_inversion_differ(models, host, store):
    plain = {"train_textembedding": False, "use_concat_embedding": False}
    alone = {"use_textembedding": False}
    ways = {
        "both": {},
        "prompt": {"train_lora": False, "use_lora": False},
        "adapters": plain | alone,
        "none": plain | alone | {"train_lora": False, "use_lora": False},
    }
    made, pictures = {}, []
    for name, switches in ways.items():
        result = run_edit(prepared(models, word=None, infer_function=0, **switches), store, host)
        made[name] = result.provenance.stages_made
        pictures.append(picture(store, result))
    assert made == {
        "both": ["codes", "prompt", "lora"],
        "prompt": [],
        "adapters": ["lora"],
        "none": [],
    }
    for number, one in enumerate(pictures):
        assert all(not torch.equal(one, other) for other in pictures[:number])


def test_an_interrupted_training_goes_on_and_gives_the_same_bits(
    models, host, store, tmp_path, monkeypatch
):
    other = open_store(str(tmp_path / "other"))
    check_it_goes_on(prepared(models), host, store, other, monkeypatch)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"word": "dog"}, UnknownWordError, r"'dog' is not in the source prompt.*red, cat"),
        ({"word": "cat", "occurrence": 2}, UnknownWordError, "occurs 1 times"),
        ({"prompt_rows": 20}, InvalidPromptError, "20 learned rows follow.*the model takes 24"),
        ({"mask": drawn_mask(8, 8)}, InvalidImageError, "mask has 8 x 8 pixels, the image 40 x 24"),
        ({"mask": encode_png(torch.zeros(1, HEIGHT, WIDTH))}, InvalidImageError, "nothing in the"),
        ({"mask": b"no picture"}, InvalidImageError, "image"),
        ({"kernel": "round"}, InvalidRequestError, "parameters.kernel"),
        ({"fields": {"mask": "mask.png"}}, InvalidImageError, "not handed in"),
    ],
)
def test_a_wrong_request_is_refused_before_any_network(models, change, error, says):
    with pytest.raises(error, match=says):
        prepared(models, **change)


def test_a_mask_is_read_from_beside_the_manifest(models, tmp_path):
    (tmp_path / "mask.png").write_bytes(drawn_mask())
    request = prepared(models, mask=drawn_mask()).request
    assert read_mask(request, base=tmp_path) == drawn_mask()
    assert read_mask(prepared(models).request, base=tmp_path) is None
    with pytest.raises(InvalidImageError, match=r"mask\.png"):
        read_mask(request, base=Path(tmp_path / "elsewhere"))


def test_a_model_set_without_infinity_says_so(tmp_path):
    write_tiny_set(tmp_path)
    with pytest.raises(ModelSetError, match="has no Infinity"):
        prepared(open_model_set(str(tmp_path)))


def test_a_loss_that_is_not_finite_ends_that_edit_alone(models, store):
    networks = tiny_whole_networks()
    with torch.no_grad():
        networks.infinity.transformer.head.bias.fill_(float("nan"))
    broken = OperationHost(networks)
    with pytest.raises(Exception, match=r"not finite|nan") as caught:
        run_edit(prepared(models), store, broken)
    assert type(caught.value).__name__ == "EditDivergedError"
