"""Pictures of edits on their way: of all methods, in the original's frame, changing nothing."""

import pytest
import torch

from benchmarks.gpu.small import QUICK_REGIONS
from farm.backbones.host import OperationHost
from farm.images import decode_image, encode_png
from farm.requests import parse_request
from farm.runner import load_output, prepare, run_edit
from farm.storage.opening import open_store
from tests.tiny_infinity import tiny_whole_networks, write_tiny_whole_set
from tests.tiny_regions import tiny_region_networks, write_tiny_region_set
from tests.tiny_sets import opened

HEIGHT, WIDTH = 24, 40
PICTURE = encode_png(torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)))
ORIGINAL = decode_image(PICTURE).image
QUICK = {
    "style_diffusion": {"num_steps": 4, "inner_steps": 1, "local_blend": False},
    "edit_infinity": {
        "train_textembedding_iter": 3,
        "train_lora_iter": 3,
        "prompt_rows": 2,
        "lora_r": 2,
        "paste_back": False,
    },
    "learnable_regions": {**QUICK_REGIONS, "finalists": 2, "num_steps": 4},
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A set for each method, with what answers its calls."""
    whole = opened(write_tiny_whole_set, tmp_path_factory), OperationHost(tiny_whole_networks())
    regions = opened(write_tiny_region_set, tmp_path_factory), OperationHost(tiny_region_networks())
    return {"style_diffusion": whole, "edit_infinity": whole, "learnable_regions": regions}


def run(sets, store, method, report=lambda _: None):
    models, host = sets[method]
    fields = {
        "method": method,
        "image": "picture.png",
        "source_prompt": "a red cat",
        "target_prompt": "a blue cat",
        "target_word": "cat",
        "model_set": str(models.folder),
        "parameters": QUICK[method],
    }
    prepared = prepare(parse_request(fields), PICTURE, models)
    result = run_edit(prepared, store, host, report=report)
    return load_output(store, result, "edited.png")


def watched(sets, folder, method):
    """The edited file and all pictures by stage, when somebody looks at every step."""
    seen = {}

    def look(progress):
        if progress.preview is not None:
            seen.setdefault(progress.stage, []).append(progress.preview())

    return run(sets, open_store(str(folder)), method, look), seen


@pytest.mark.parametrize(
    ("method", "stages"),
    [
        ("style_diffusion", {"style_diffusion.inversion", "style_diffusion.editing"}),
        (
            "edit_infinity",
            {
                *("edit_infinity.codes", "edit_infinity.prompt", "edit_infinity.lora"),
                "edit_infinity.editing",
            },
        ),
        ("learnable_regions", {"learnable_regions.table", "learnable_regions.editing"}),
    ],
)
def test_pictures_are_the_originals_size_and_looking_changes_nothing(
    sets, tmp_path, method, stages
):
    edited, seen = watched(sets, tmp_path / "seen", method)
    assert set(seen) == stages
    for picture in (picture for pictures in seen.values() for picture in pictures):
        assert picture.shape == ORIGINAL.shape
        assert picture.isfinite().all()
        assert not torch.equal(picture, ORIGINAL)
    assert edited == run(sets, open_store(str(tmp_path / "unseen")), method)


def distance(picture, edited):
    return (picture - decode_image(edited).image).abs().mean().item()


def test_style_diffusions_pictures_come_nearer_to_the_result(sets, tmp_path):
    edited, seen = watched(sets, tmp_path, "style_diffusion")
    first, *_, last = seen["style_diffusion.editing"]
    assert distance(last, edited) < 0.5 * distance(first, edited)


def test_edit_infinitys_last_picture_is_the_result(sets, tmp_path):
    edited, seen = watched(sets, tmp_path, "edit_infinity")
    assert distance(seen["edit_infinity.editing"][-1], edited) < 1 / 255  # rounding to a file


def test_what_learnable_regions_shows_is_the_original_but_for_one_region(sets, tmp_path):
    _, seen = watched(sets, tmp_path, "learnable_regions")
    for picture in seen["learnable_regions.editing"]:
        same = (picture == ORIGINAL).all(dim=0)
        assert same.any()
        assert not same.all()
