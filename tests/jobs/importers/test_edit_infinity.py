"""Example folders of seeds 000 and 001 as requests."""

import pytest

from farm.errors import InvalidManifestError
from jobs.importers import FORMS
from jobs.importers.edit_infinity import read_edit_infinity
from jobs.importers.options import ImportOptions
from jobs.manifests import BrokenLine, ManifestLine
from jobs.records import job_name

STEP_6 = {
    "train_textembedding": 1,
    "train_textembedding_iter": 10,
    "use_textembedding": 1,
    "use_textembedding_iter": 10,
    "train_lora": 1,
    "train_lora_iter": 20,
    "infer_function": 2,
    "use_concat_embedding": 1,
    "use_embedding_iter": 10,
    "use_lora": 1,
    "use_lora_iter": 20,
}


def example(folder, *, word="cat", mask=False, picture="original_image.jpg", **texts):
    for name in ("image", "prompt"):
        (folder / name).mkdir(parents=True)
    (folder / "image" / picture).write_bytes(b"")
    if mask:
        (folder / "image" / "mask.png").write_bytes(b"")
    written = {
        "original_image_prompt": "a photo of a cat on grass\n",
        "edit_image_prompt": "a photo of a dog on grass\n",
        "target_word": word,
    } | texts
    for name, text in written.items():
        if text is not None:
            (folder / "prompt" / f"{name}.txt").write_text(text)
    return folder


def lines(folder, **parameters):
    return list(read_edit_infinity(folder, ImportOptions("scenes", parameters)))


def test_the_example_of_seed_000_with_the_switches_of_its_steps(tmp_path):
    folder = example(tmp_path / "example3")
    (line,) = lines(folder, seed=42, **STEP_6)
    assert isinstance(line, ManifestLine)
    assert (line.number, line.name) == (1, "example3")
    request = line.request
    assert request.image == str(folder / "image" / "original_image.jpg")
    assert request.source_prompt == "a photo of a cat on grass"
    assert request.target_prompt == "a photo of a dog on grass"
    assert (request.target_word, request.mask, request.seed) == ("cat", None, 42)
    said = request.parameters.model_dump(exclude_none=True)
    assert said == STEP_6 | {"reference": False}


def test_a_mask_is_black_where_the_edit_is_to_be(tmp_path):
    folder = example(tmp_path / "example2", mask=True, word=None)
    (line,) = lines(folder)
    assert line.request.mask == str(folder / "image" / "mask.png")
    assert line.request.mask_edits == "black"
    assert line.request.target_word is None


def test_without_mask_and_word_the_whole_picture_is_edited(tmp_path):
    (line,) = lines(example(tmp_path / "example1", word=None, picture="original_image.png"))
    assert line.request.target_word is None
    assert line.request.image.endswith("original_image.png")


def test_a_folder_of_examples_is_all_of_them(tmp_path):
    for name in ("b cat", "a", "c"):
        example(tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "c" / "prompt" / "edit_image_prompt.txt").unlink()
    found = lines(tmp_path)
    assert [line.name for line in found] == ["a", "b-cat", "c"]
    assert isinstance(found[2], BrokenLine)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"edit_image_prompt": None}, r"example: prompt/edit_image_prompt\.txt is missing: write"),
        ({"original_image_prompt": " \n"}, r"original_image_prompt\.txt is empty"),
        ({"word": ""}, r"target_word\.txt is empty"),
        ({"picture": "photo.jpg"}, r"image/original_image\.jpg is missing"),
        ({"edit_image_prompt": "a photo of a cat on grass"}, "nothing to edit"),
    ],
)
def test_a_wrong_folder_says_which_file(tmp_path, change, says):
    (line,) = lines(example(tmp_path / "example", **change))
    assert isinstance(line, BrokenLine)
    with pytest.raises(InvalidManifestError, match=says):
        raise line.error


def test_a_wrong_switch_says_which(tmp_path):
    (line,) = lines(example(tmp_path / "example"), use_lora_iter=0)
    assert "parameters.use_lora_iter" in line.error.message


@pytest.mark.parametrize(("name", "says"), [("nowhere", "no folder"), ("", "is no example")])
def test_what_is_no_example_is_refused(tmp_path, name, says):
    with pytest.raises(InvalidManifestError, match=says):
        lines(tmp_path / name)


def test_a_folder_is_a_job_of_its_own_until_a_prompt_changes(tmp_path):
    assert FORMS["edit-infinity"].read is read_edit_infinity
    folder = example(tmp_path / "example")
    before = job_name(folder, "scenes")
    assert job_name(folder, "scenes") == before
    (folder / "prompt" / "edit_image_prompt.txt").write_text("a photo of a bird on grass")
    assert job_name(folder, "scenes") != before
