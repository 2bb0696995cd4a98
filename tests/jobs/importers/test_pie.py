import io
import json
import math

import pytest
import torch
from rich.console import Console

from farm.errors import InvalidManifestError
from farm.images import encode_png
from farm.zoo.scenes.edits import edit_truth, sample_edits
from jobs.importers.options import ImportOptions
from jobs.importers.pie import (
    CATEGORIES,
    PieCase,
    category_means,
    category_table,
    read_cases,
    read_pie,
    request_fields,
    without_brackets,
)
from jobs.manifests import BrokenLine, ManifestLine

TYPES = {"colour": "6", "background": "8", "shape": "1", "pattern": "7"}
ENTRY = {
    "image_path": "0_random/1.jpg",
    "original_prompt": "a [red] ball on sand",
    "editing_prompt": "a [blue] ball on sand",
    "editing_instruction": "make the ball blue",
    "editing_type_id": "6",
    "blended_word": "red blue",
    "mask": [1000, 20, 3000, 5],
}


def runs_of(mask: torch.Tensor) -> list[int]:
    """Starts and lengths of the ones of a mask, row by row."""
    flat = torch.cat([torch.zeros(1), mask.flatten().round(), torch.zeros(1)])
    edges = flat.diff().nonzero()[:, 0].tolist()
    return [n for i in range(0, len(edges), 2) for n in (edges[i], edges[i + 1] - edges[i])]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Four held-out scenes as the benchmark's folder, and their true regions."""
    folder, entries, regions = tmp_path_factory.mktemp("pie"), {}, {}
    for number, edit in enumerate(sample_edits(4, 11, tuple(TYPES))):
        truth, name = edit_truth(edit), f"{number:012d}"
        region = torch.nn.functional.interpolate((truth.region > 0.5)[None, None].float(), 512)
        path = folder / "annotation_images" / edit.type / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(truth.source.images[0]))
        new = next(w for w in edit.target_prompt.split() if w not in edit.source_prompt.split())
        entries[name] = {
            "image_path": f"{edit.type}/{name}.png",
            "original_prompt": edit.source_prompt,
            "editing_prompt": edit.target_prompt.replace(new, f"[{new}]", 1),
            "editing_instruction": "",
            "editing_type_id": TYPES[edit.type],
            "blended_word": "",
            "mask": runs_of(region),
        }
        regions[name] = (edit, region[0])
    (folder / "mapping_file.json").write_text(json.dumps(entries))
    return folder, regions


@pytest.fixture
def entries(tmp_path):
    def entries(*changed: dict):
        path = tmp_path / "mapping_file.json"
        path.write_text(json.dumps({f"e{n}": ENTRY | c for n, c in enumerate(changed)}))
        return path

    return entries


def test_a_folder_in_the_benchmarks_form_is_read_whole(benchmark):
    folder, regions = benchmark
    lines = list(read_pie(folder, ImportOptions("scenes")))
    assert [line.name for line in lines] == list(regions)
    for line in lines:
        assert isinstance(line, ManifestLine), line.error.message
        edit, _ = regions[line.name]
        assert line.request.source_prompt == edit.source_prompt
        assert line.request.target_prompt == edit.target_prompt
        assert (folder / line.request.image).is_file()
        assert line.request.parameters.local_blend is False
        assert "mask" not in line.request.model_dump()


def test_masks_are_the_regions_and_released_ones_have_a_border(benchmark):
    folder, regions = benchmark
    for case in read_cases(folder / "mapping_file.json"):
        assert isinstance(case, PieCase)
        _, region = regions[case.name]
        assert torch.equal(case.mask(convention="corrected"), region)
        released = case.mask()
        assert torch.equal(released[:, 1:-1, 1:-1], region[:, 1:-1, 1:-1])
        assert released[0, 0].min() == released[0, :, -1].min() == 1


def test_an_entry_as_it_is_published(entries):
    (case,) = read_cases(entries({}))
    assert (case.source_prompt, case.target_prompt) == (
        "a red ball on sand",
        "a blue ball on sand",
    )
    assert case.image == "annotation_images/0_random/1.jpg"
    assert (case.category, CATEGORIES[case.category]) == ("6", "change colour")
    assert case.mask(convention="corrected").sum() == 25
    (line,) = read_pie(entries({}), ImportOptions("scenes", parameters={"tau_c": 0.4}))
    parameters = line.request.parameters
    assert (parameters.source_words, parameters.target_words) == (("red",), ("blue",))
    assert parameters.local_blend
    assert parameters.tau_c == 0.4


def test_other_methods_get_prompts_and_picture_alone(entries):
    (case,) = read_cases(entries({}))
    fields = request_fields(case, "learnable_regions")
    assert (fields["method"], fields["parameters"]) == ("learnable_regions", {})
    assert fields["target_prompt"] == "a blue ball on sand"


def test_brackets_leave_no_gap():
    assert without_brackets("a [ ] cat [on the [mat]]") == "a cat on the mat"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"editing_type_id": "10"}, "editing_type_id: found '10', expected a type"),
        ({"editing_type_id": 3}, "editing_type_id: found 3, expected text"),
        ({"original_prompt": ""}, "original_prompt: found '', expected text"),
        ({"image_path": None}, "image_path: found nothing, expected text"),
        ({"mask": None}, "mask: found nothing, expected a list"),
        ({"mask": [1, "2"]}, "mask: found [1, '2'], expected a list"),
        ({"mask": [1]}, "mask: found 1 numbers"),
        ({"mask": [-3, 2]}, "mask: found a run of 2 from -3"),
        ({"blended_word": "red blue green"}, "blended_word: found 'red blue green', expected a"),
    ],
)
def test_a_wrong_entry_says_why_and_harms_no_other(entries, change, says):
    before, broken, after = read_cases(entries({}, change, {}))
    assert isinstance(before, PieCase)
    assert isinstance(after, PieCase)
    assert isinstance(broken, BrokenLine)
    assert broken.error.message.startswith(f"entry 'e1', {says}")


def test_what_only_the_request_can_tell_names_the_entry(entries):
    (line,) = read_pie(entries({"editing_prompt": "a red ball on sand"}), ImportOptions("scenes"))
    assert line.error.message.startswith("entry 'e0': ")
    assert "nothing to edit" in line.error.message


@pytest.mark.parametrize(("data", "says"), [("{", "is not JSON"), ("[]", "one JSON object")])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, data, says):
    (tmp_path / "mapping_file.json").write_text(data)
    with pytest.raises(InvalidManifestError, match=says):
        list(read_cases(tmp_path))
    with pytest.raises(InvalidManifestError, match=r"holds mapping_file\.json"):
        list(read_cases(tmp_path / "none"))


def test_means_by_category_leave_nan_out_and_tables_are_scaled():
    figures = [
        ("1", {"psnr_unedited": 20.0, "mse_unedited": 0.002, "clip_whole[tiny]": 20.0}),
        ("1", {"psnr_unedited": math.nan, "mse_unedited": 0.004, "clip_whole[tiny]": 22.0}),
        ("9", {"psnr_unedited": 40.0, "mse_unedited": math.nan, "clip_whole[tiny]": 30.0}),
    ]
    means = category_means(figures)
    assert list(means) == ["1", "9", "all"]
    assert means["1"] == {
        "edits": 2,
        "psnr_unedited": 20.0,
        "mse_unedited": pytest.approx(0.003),
        "clip_whole[tiny]": 21.0,
    }
    assert means["all"]["psnr_unedited"] == 30.0
    assert means["all"]["clip_whole[tiny]"] == 24.0
    screen = Console(width=120, record=True, file=io.StringIO())
    screen.print(category_table(means))
    lines = screen.export_text().splitlines()
    assert "1 change object" in lines[2]
    assert lines[2].split()[-3:] == ["20.00", "30.00", "21.00"]  # MSE x1e4
    assert lines[3].split()[-3:] == ["40.00", "-", "30.00"]
    assert "tiny" in lines[1]
