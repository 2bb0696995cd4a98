"""`farm.edit` in this process: on tiny networks, and once on the scenes' own."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import farm
from farm import edit
from farm.errors import (
    InvalidImageError,
    InvalidPromptError,
    InvalidRequestError,
    StoreError,
    UnknownWordError,
)
from farm.images import decode_image, encode_png
from farm.notebook import InProcess
from farm.notebook.progress_view import stage_text
from farm.requests import parse_request
from tests.tiny import write_tiny_set

QUICK = {"num_steps": 2, "inner_steps": 1}
WORDS = {"source": "a red ball", "target": "a blue ball"}
EXAMPLES = Path(__file__).parents[3] / "examples" / "demo"


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny-set")
    write_tiny_set(folder)
    return str(folder)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    generator = torch.Generator().manual_seed(0)
    return Image.open(io.BytesIO(encode_png(torch.rand(3, 24, 20, generator=generator))))


@pytest.fixture(scope="module")
def quick(tiny_set) -> dict:
    return {**WORDS, "parameters": QUICK, "model_set": tiny_set}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def result(picture, quick, store):
    return edit(picture, **quick, store=store)


def test_the_result_has_pictures_figures_and_provenance(result, picture):
    assert result.before.size == result.edited.size == picture.size == (20, 24)
    assert result.mask is not None
    assert result.mask.mode == "L"
    assert result.provenance.work["unet_forward"] > 0
    assert not result.reused
    written = json.loads(result.read("metrics.json"))
    assert result.figures == {k: v for k, v in written.items() if isinstance(v, int | float)}
    assert result.figures


def test_the_same_edit_is_found_however_it_is_said(result, picture, quick, store):
    data = io.BytesIO()
    picture.save(data, format="PNG")
    request = parse_request(
        {
            "image": "elsewhere.png",
            "source_prompt": quick["source"],
            "target_prompt": quick["target"],
            "parameters": QUICK,
            "model_set": quick["model_set"],
        }
    )
    for asked in (request, request.model_dump(exclude_unset=True)):
        again = edit(data.getvalue(), asked, store=store)
        assert again.reused
        assert again.edit_id == result.edit_id
    other = edit(data.getvalue(), request, target="a green ball", store=store)
    assert not other.reused
    assert other.provenance.stage_reused


def test_edits_without_a_store_share_one_while_the_process_lives(picture, quick):
    first = edit(picture, **quick)
    assert edit(picture, **quick).edit_id == first.edit_id
    assert edit(picture, **quick).reused
    assert InProcess().store.uri == InProcess().store.uri


def test_progress_is_told_step_by_step(picture, quick):
    steps = []
    edit(picture, **quick, seed=1, progress=steps.append)
    stages = list(dict.fromkeys(step.stage for step in steps))
    assert [stage_text(stage) for stage in stages] == ["inversion", "editing"]
    assert all(0 <= step.step <= step.total for step in steps)


def test_a_page_refers_to_nothing_outside_itself(result):
    page = result._repr_html_()
    assert re.findall(r"(?:src|href|url)\W{0,3}(\w+)", page) == ["data"] * page.count("<img ")
    assert "<b>red</b>" in page
    assert "<b>blue</b>" in page
    for label in ("before", "after", "mask"):
        assert f">{label}</figcaption>" in page
    assert "<script" not in edit_page_of_a_hostile_prompt(result)


def edit_page_of_a_hostile_prompt(result) -> str:
    fields = {**result.task.fields, "source_prompt": "<script>alert(1)</script>"}
    task = type(result.task)(fields, result.task.picture)
    return type(result)(task, result.finished)._repr_html_()


def test_show_opens_a_page_outside_notebooks(result, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    result.show()
    path = Path(opened[0].removeprefix("file://"))
    assert result.edit_id in path.read_text(encoding="utf-8")
    path.unlink()


def test_save_writes_every_output(result, tmp_path):
    paths = result.save(tmp_path / "new")
    assert {path.name for path in paths} == set(result.files) == {p.name for p in paths}
    saved = decode_image((tmp_path / "new" / "edited.png").read_bytes()).image
    assert saved.shape == (3, 24, 20)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequestError, match="cannot write into"):
        result.save(tmp_path / "file")
    with pytest.raises(InvalidRequestError, match=r"no output 'x\.png'; it has"):
        result.read("x.png")


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"target": "a red ball"}, InvalidRequestError, "nothing to edit"),
        ({"word": "zebra"}, UnknownWordError, "zebra"),
        ({"target": "ball " * 300}, InvalidPromptError, "tokens"),
        ({"parameters": {"tau": 0.5}}, InvalidRequestError, "no such field"),
        ({"method": "magic"}, InvalidRequestError, "no such method"),
        ({"model_set": "nowhere"}, InvalidRequestError, "no model set"),
        ({"mask": b"x"}, InvalidRequestError, "mask: no such field"),
        ({"farm": "ftp://x"}, InvalidRequestError, "expected an address"),
        ({"key": "ef_x"}, InvalidRequestError, "no farm"),
        ({"farm": "http://127.0.0.1:9", "store": "x"}, InvalidRequestError, "store of its own"),
        ({"hue": 3}, InvalidRequestError, "hue: no such field"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(picture, quick, changes, kind, says):
    with pytest.raises(kind, match=says):
        edit(picture, **{**quick, **changes})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (b"", "empty file"),
        ("none.png", "No such file"),
        (Image.new("F", (20, 20)), "mode F"),
    ],
)
def test_a_picture_that_is_none_is_said_to_be(quick, wrong, says):
    with pytest.raises(InvalidImageError, match=says):
        edit(wrong, **quick)


def test_a_store_that_cannot_be_written_is_refused(picture, quick, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        edit(picture, **quick, store=tmp_path / "file" / "below")


def test_importing_farm_imports_no_library_of_networks_and_no_ray():
    code = (
        "import sys, farm.errors; assert 'torch' not in sys.modules; from farm import edit;"
        "print([m for m in ('diffusers', 'transformers', 'ray', 'fastapi') if m in sys.modules])\n"
        "try: edit(3.5, source='a red ball', target='a blue ball')\n"
        "except farm.errors.InvalidImageError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    libraries, refused = ran.stdout.splitlines()
    assert libraries == "[]"
    assert "type float" in refused  # here, where no test's hook says it before us
    assert not hasattr(farm, "nothing")


def test_a_scene_is_edited_in_earnest(tmp_path):
    with (EXAMPLES / "manifest.jsonl").open(encoding="utf-8") as lines:
        line = json.loads(next(lines))
    result = edit(
        EXAMPLES / line["image"],
        source=line["source_prompt"],
        target=line["target_prompt"],
        word=line["target_word"],
        parameters={"num_steps": 8, "inner_steps": 4},
        store=tmp_path / "store",
    )
    before, after, truth = (
        decode_image(data).image
        for data in (
            result.task.picture,
            result.read("edited.png"),
            (EXAMPLES / line["truth"]).read_bytes(),
        )
    )
    changes = (truth - before).abs().amax(0) > 0.1
    near = (after - truth)[:, changes].square().mean()
    assert near < 0.5 * (before - truth)[:, changes].square().mean()  # nearer to green than orange
    assert (after - before)[:, ~changes].abs().mean() < 0.02
