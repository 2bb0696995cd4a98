"""What the evaluation takes from an edit by EditInfinity."""

import math

import pytest
import torch

from farm.backbones.host import OperationHost
from farm.images import decode_image, encode_png
from farm.requests import parse_request
from farm.runner import load_stage, prepare, run_edit
from farm.runner.edit_infinity import unpack_codes
from farm.storage.opening import open_store
from farm.storage.tensors import unpack_tensors
from farm.zoo.scenes.edits import edit_truth, sample_edits
from jobs.evaluation.edit_infinity import EditInfinityMeasures
from jobs.evaluation.finished import Finished
from jobs.evaluation.measures import Measures
from jobs.evaluation.scores import MEASURES
from tests.tiny_infinity import tiny_whole_networks, write_tiny_whole_set
from tests.tiny_sets import opened

PICTURE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
QUICK = {"train_textembedding_iter": 1, "train_lora_iter": 1, "prompt_rows": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return opened(write_tiny_whole_set, tmp_path_factory)


@pytest.fixture(scope="module")
def host():
    return OperationHost(tiny_whole_networks())


def edited(models, host, store, word, **parameters):
    fields = {
        "method": "edit_infinity",
        "image": "a.png",
        "source_prompt": "a red cat on the grass",
        "target_prompt": "a blue cat on the grass",
        "target_word": word,
        "model_set": str(models.folder),
        "parameters": QUICK | parameters,
    }
    edit = prepare(parse_request(fields), encode_png(PICTURE), models)
    return Finished(store, "default", edit, run_edit(edit, store, host))


def test_its_map_mask_and_figures_are_found(models, host, tmp_path):
    measures = EditInfinityMeasures()
    assert isinstance(measures, Measures)
    assert isinstance(MEASURES["edit_infinity"], EditInfinityMeasures)
    store = open_store(str(tmp_path))
    truth = edit_truth(sample_edits(1, 1, ("colour",))[0])
    found = measures.found(edited(models, host, store, "cat"), truth)
    assert found.mask.shape == found.map.shape == (16, 16)
    assert {"bit_accuracy_before", "bit_accuracy_prompt", "bit_accuracy_lora"} <= set(found.figures)
    assert found.reconstruction.shape == (3, 16, 16)
    found = measures.found(edited(models, host, store, None), truth)
    assert found.map is None
    assert found.mask.min() == 1, "without a region everything is edited"


def test_beyond_the_ramp_counts_what_the_source_alone_decided(models, host, tmp_path):
    """A word's region, decoded whole, against the source's bits decoded: nothing but the decoder's
    sight makes a difference; pasted back, nothing does. The rest of the picture is another."""
    store = open_store(str(tmp_path))
    truth = edit_truth(sample_edits(1, 1, ("colour",))[0])
    decoded = edited(models, host, store, "cat", paste_back=False, threshold=0.97)
    pasted = edited(models, host, store, "cat", paste_back=True, threshold=0.97)
    measures = EditInfinityMeasures()
    weight = unpack_tensors(decoded.output("weight_tensor.safetensors"))[0]["weight"]
    assert (weight < 1).any()
    side = 16 // len(weight)
    kept = torch.ones(16, 16)
    for row, column in (weight < 1).nonzero().tolist():
        rows = slice(max(0, (row - 1) * side), (row + 2) * side)
        kept[rows, max(0, (column - 1) * side) : (column + 2) * side] = 0
    assert kept.any()
    source = decode_image(encode_png(PICTURE)).image
    for edit in (decoded, pasted):
        found = measures.found(edit, truth)
        error = (edit.picture("edited.png") - source).square().mean(dim=0)[kept > 0].mean()
        expected = min(-10 * math.log10(max(error.item(), 1e-10)), 100)
        assert found.figures["beyond_ramp_psnr"] == pytest.approx(expected, abs=1e-3)
        rebuilt = (found.reconstruction - source).square().mean(dim=0)[kept > 0].mean()
        expected = -10 * math.log10(rebuilt.item())
        assert found.figures["beyond_ramp_bound_psnr"] == pytest.approx(expected, abs=1e-3)
    assert measures.found(pasted, truth).figures["beyond_ramp_psnr"] == 100
    everywhere = measures.found(edited(models, host, store, None), truth)
    assert math.isnan(everywhere.figures["beyond_ramp_psnr"])


def test_its_bound_is_the_source_from_its_own_bits(models, host, tmp_path):
    store = open_store(str(tmp_path))
    edit = edited(models, host, store, "cat")
    bounds = EditInfinityMeasures().bounds(host, edit, PICTURE)
    codes = unpack_codes(load_stage(store, "default", edit.prepared.stages["codes"]))
    assert torch.equal(bounds.autoencoded, codes.image)
