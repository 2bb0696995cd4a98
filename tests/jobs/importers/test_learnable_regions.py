"""`images.json` of seeds 002 and 003 as requests."""

import json

import pytest

from farm.errors import InvalidManifestError, InvalidRequestError
from jobs.importers import FORMS
from jobs.importers.learnable_regions import read_learnable_regions, released_flags
from jobs.importers.options import ImportOptions
from jobs.manifests import BrokenLine, ManifestLine

SEED_003 = """{
  "1.png": ["trees", "a big tree with many flowers in the center"],
  "2.png": ["coffee", "soft drink"]
}"""
README_FLAGS = {
    "draw_box": True,
    "lr": 5e-3,
    "max_window_size": 15,
    "per_image_iteration": 10,
    "epochs": 1,
    "num_workers": 8,
    "seed": 42,
    "pin_mem": True,
    "point_number": 9,
    "batch_size": 1,
    "save_path": "checkpoints/",
    "output_dir": "output/",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "images" / name).write_bytes(b"")
    return tmp_path


def lines(folder, text=SEED_003, **parameters):
    path = folder / "images.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return list(read_learnable_regions(path, ImportOptions("scenes", parameters)))


def test_the_example_of_seed_003(folder):
    first, second = lines(folder)
    assert isinstance(first, ManifestLine)
    assert (first.number, first.name) == (1, "1.png")
    assert first.request.method == "learnable_regions"
    assert first.request.image == "images/1.png"
    assert first.request.source_prompt == "trees"
    assert first.request.target_prompt == "a big tree with many flowers in the center"
    assert first.request.model_set == "scenes"
    assert (second.number, second.request.target_prompt) == (2, "soft drink")


def test_the_flags_of_seed_002(folder):
    first, _ = lines(folder, **README_FLAGS)
    assert first.request.seed == 42
    given = first.request.parameters.model_dump(exclude_unset=True)
    names = ("draw_box", "lr", "max_window_size", "per_image_iteration", "epochs")
    names += ("point_number", "batch_size")
    assert given == {name: README_FLAGS[name] for name in names}
    flags = released_flags(README_FLAGS)
    assert str(flags.save_path) == "checkpoints"
    assert str(flags.output_dir) == "output"


def test_pictures_beside_the_file_and_where_they_are_said_to_be(folder, tmp_path):
    (folder / "3.png").write_bytes(b"")
    (line,) = lines(folder, {"3.png": ["a", "b"]})
    assert line.request.image == "3.png"
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "3.png").write_bytes(b"")
    (line,) = lines(folder, {"3.png": ["a", "b"]}, image_dir_path=str(other))
    assert line.request.image == "elsewhere/3.png"
    assert isinstance(lines(folder, image_dir_path=str(other))[0], BrokenLine)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (["trees"], r"value: found \['trees'\], expected \[caption, editing prompt\]"),
        ("trees", "value: found 'trees'"),
        ({"caption": "trees"}, r"value: found \{'caption': 'trees'\}"),
        (["trees", 3], "editing prompt: found 3, expected text"),
        ([["trees"], "x"], r"caption: found \['trees'\], expected text"),
        (["  ", "x"], "caption: found nothing"),
        (["trees", ""], "editing prompt: found nothing"),
        (["a tree", "a  tree"], "editing prompt: found the caption 'a tree'"),
        (["trees", "x" * 2001], "target_prompt"),
    ],
)
def test_a_wrong_entry_says_so_and_harms_no_other(folder, value, says):
    broken, good = lines(folder, {"1.png": value, "2.png": ["coffee", "soft drink"]})
    assert isinstance(broken, BrokenLine)
    assert (broken.number, broken.name) == (1, "1.png")
    with pytest.raises(InvalidManifestError, match=f"entry '1.png'.*{says}"):
        raise broken.error
    assert isinstance(good, ManifestLine)


def test_a_missing_picture_is_named(folder):
    (broken,) = lines(folder, {"9.png": ["a", "b"]})
    assert "entry '9.png', key: found no such file in" in broken.error.message


def test_a_picture_that_comes_twice_is_refused_once(folder):
    text = '{"1.png": ["a", "b"], "1.png": ["a", "c"]}'
    first, second = lines(folder, text)
    assert first.request.target_prompt == "b"
    assert "found a second time, expected each picture once" in second.error.message


def test_wrong_parameters_are_said_of_each_entry(folder):
    for line in lines(folder, point_number=0):
        assert isinstance(line, BrokenLine)
        assert "parameters.point_number" in line.error.message


@pytest.mark.parametrize("name", ["diffusion_model_path", "image_size", "image_file_path"])
def test_flags_with_another_place_say_which(folder, name):
    with pytest.raises(InvalidRequestError, match=f"{name}: leave it out"):
        lines(folder, **{name: "x"})


def test_a_folder_must_be_text(folder):
    with pytest.raises(InvalidRequestError, match="save_path: found 3"):
        lines(folder, save_path=3)


@pytest.mark.parametrize("text", ["[1]", "{", '"x"', "3"])
def test_other_files_are_refused(folder, text):
    with pytest.raises(InvalidManifestError, match="object is expected"):
        lines(folder, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidManifestError, match=r"cannot read .*images\.json"):
        list(read_learnable_regions(tmp_path / "images.json", ImportOptions("scenes")))


def test_odd_file_names_are_no_ids(folder):
    (folder / "images" / "a b.png").write_bytes(b"")
    (line,) = lines(folder, {"a b.png": ["a", "cat/dog"]})
    assert (line.name, line.request.id) == ("entry-1", "entry-1")
    assert line.place == "entry 'a b.png'"
    assert line.request.target_prompt == "cat/dog"


def test_a_byte_order_mark_is_allowed(folder):
    assert len(lines(folder, "\ufeff" + SEED_003)) == 2


def test_the_form_is_known_by_name():
    assert FORMS["learnable-regions"].read is read_learnable_regions
    assert FORMS["learnable-regions"].file_in_folder == "images.json"
