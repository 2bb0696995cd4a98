"""Listing, fetching and deleting, on a store that real edits of tiny networks filled."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm.storage.commits import commit, read_commit
from farm.storage.layout import edit_prefix, input_key, stage_prefix
from farm.storage.leases import acquire
from farm.storage.opening import open_store
from jobs.artifacts import app
from jobs.edit_many import app as edit_many
from tests.jobs.conftest import LINE, write_picture

TENANT = "default"


@pytest.fixture(scope="module")
def filled_once(tiny_set, tmp_path_factory):
    """Two targets of one inversion, and a third edit with one of its own; ids by name."""
    folder = tmp_path_factory.mktemp("filled")
    write_picture(folder / "a.png")
    lines = [{"id": "blue"}, {"id": "green", "target_prompt": "a green ball"}]
    lines.append({"id": "x", "seed": 1})
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps({"image": "a.png"} | LINE | line) + "\n" for line in lines))
    options = ["--output", str(folder / "store"), "--model-set", tiny_set, "--inline", "--json"]
    result = CliRunner().invoke(edit_many, [str(path), "--no-report", *options])
    assert result.exit_code == 0, result.stderr
    found = {o["name"]: o["result"] for o in map(json.loads, result.stdout.splitlines())}
    ids = {name: (r["edit_id"], r["provenance"]) for name, r in found.items()}
    return folder / "store", {
        name: (edit, about["stages"]["inversion"], about["image_digest"])
        for name, (edit, about) in ids.items()
    }


@pytest.fixture
def filled(filled_once, tmp_path):
    """A copy of its own for each test."""
    store, ids = filled_once
    shutil.copytree(store, tmp_path / "store")
    return ids


@pytest.fixture
def call(tmp_path):
    def call(command: str, *arguments: str, code: int = 0):
        options = ["--store", str(tmp_path / "store"), "--json"]
        result = CliRunner().invoke(app, [command, *arguments, *options])
        assert result.exit_code == code, result.output
        return [json.loads(line) for line in result.stdout.splitlines()] or result.stderr

    return call


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def test_inversions_are_listed_with_the_edits_that_use_them(filled, call):
    stages = {record["id"]: record for record in call("list")}
    shared, own = filled["blue"][1], filled["x"][1]
    assert stages.keys() == {shared, own}
    assert set(stages[shared]["edits"]) == {filled["blue"][0], filled["green"][0]}
    assert stages[own]["edits"] == [filled["x"][0]]
    record = stages[shared]
    assert (record["name"], record["method"]) == ("inversion", "style_diffusion")
    assert record["image"] == filled["blue"][2]
    assert record["files"].keys() == {"inversion.safetensors"}
    assert record["size"] == record["files"]["inversion.safetensors"]["size"] > 0
    assert "facts" not in record
    (detailed, _) = call("list", "--details")
    assert detailed["facts"]["prompt"] == "a red ball"
    assert len(call("list", "--kind", "edits")) == 3
    assert len(call("list", "--kind", "all")) == 5


def test_the_table_is_for_eyes(filled, tmp_path):
    result = CliRunner().invoke(app, ["list", "--details", "--store", str(tmp_path / "store")])
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if filled["blue"][1][:12] in line)
    assert "a red ball" in row
    assert "2 stages, 3 edits" in result.stderr


def test_an_inversion_is_fetched_as_it_was_committed(filled, call, store, tmp_path):
    digest = filled["x"][1]
    (record,) = call("download", digest[:8], "--to", str(tmp_path / "out"))
    assert record["id"] == digest
    (path,) = map(Path, record["files"])
    assert path == tmp_path / "out" / digest / "inversion.safetensors"
    stage = stage_prefix(TENANT, digest)
    assert path.stat().st_size == read_commit(store, stage).files[path.name].size
    (edit,) = call("download", filled["x"][0], "--to", str(tmp_path / "out"))
    assert (tmp_path / "out" / filled["x"][0] / "edited.png").is_file()
    assert edit["kind"] == "edit"


def test_a_damaged_artifact_is_not_handed_out(filled, call, store, tmp_path):
    stage = stage_prefix(TENANT, filled["x"][1])
    (key,) = store.list(f"{stage}/attempts/")
    store.put(key, b"damaged")
    says = call("download", filled["x"][1], "--to", str(tmp_path / "out"), code=1)
    assert "is not what was committed" in says
    assert not (tmp_path / "out").exists()


def test_deleting_an_edit_deletes_what_derives_from_it_alone(filled, call, store):
    edit, stage, image = filled["blue"]
    (first,) = call("delete", edit)
    assert (first["edits"], first["stages"], first["inputs"]) == ([edit], [], [])
    assert set(first["kept"]) == {stage, image}
    assert list(store.list(edit_prefix(TENANT, edit) + "/")) == []
    assert read_commit(store, stage_prefix(TENANT, stage)) is not None

    (second,) = call("delete", filled["green"][0])
    assert (second["stages"], second["inputs"]) == ([stage], [])  # the image is the third edit's
    assert list(store.list(stage_prefix(TENANT, stage) + "/")) == []

    (third,) = call("delete", filled["x"][0])
    assert (third["stages"], third["inputs"]) == ([filled["x"][1]], [image])
    assert not store.exists(input_key(TENANT, image))
    left = list(store.list("tenants/"))
    assert all("/jobs/" in key for key in left)  # what jobs said of themselves stays


def test_inversions_can_be_kept(filled, call, store):
    edit, stage, _ = filled["x"]
    (deletion,) = call("delete", edit, "--keep-stages")
    assert stage in deletion["kept"]
    assert [r["edits"] for r in call("list") if r["id"] == stage] == [[]]


def test_several_at_once_in_any_order(filled, call, store):
    blue, green = filled["blue"], filled["green"]
    deletions = call("delete", blue[0], green[0], blue[1], green[0])
    assert [d["stages"] for d in deletions] == [[], [blue[1]], []]
    assert [r["id"] for r in call("list")] == [filled["x"][1]]


def test_a_deleted_inversion_is_made_again_when_it_is_needed(
    filled, call, tiny_set, manifest, tmp_path
):
    _, stage, _ = filled["blue"]
    call("delete", stage)
    assert stage not in {record["id"] for record in call("list")}
    assert len(call("list", "--kind", "edits")) == 3  # they stay as they are
    path = manifest({"id": "blue"}, {"id": "new", "target_prompt": "a yellow ball"})
    options = ["--output", str(tmp_path / "store"), "--model-set", tiny_set, "--inline", "--json"]
    result = CliRunner().invoke(edit_many, [path, *options])
    found = {o["name"]: o["result"] for o in map(json.loads, result.stdout.splitlines())}
    assert found["blue"]["reused"]
    assert found["new"]["provenance"]["stages_made"] == ["inversion"]
    assert stage in {record["id"] for record in call("list")}


def test_a_stage_that_is_being_made_is_left_alone(filled, call, store):
    edit, stage, _ = filled["x"]
    lease = acquire(store, stage_prefix(TENANT, stage), "somebody", ttl=60.0)
    assert lease is not None
    says = call("delete", stage, code=3)
    assert "is being made at this moment" in says
    (deletion,) = call("delete", edit)
    assert stage in deletion["kept"]
    assert read_commit(store, stage_prefix(TENANT, stage)) is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [("0123456789", "no artifact '0123456789'"), ("ab", "names no artifact"), ("..", "names no")],
)
def test_what_is_no_artifact_is_refused(filled, call, tmp_path, text, says):
    assert says in call("delete", text, code=2)
    assert says in call("download", text, "--to", str(tmp_path / "out"), code=2)


def test_an_ambiguous_beginning_names_all(call, store):
    for digest in ("abcd1", "abcd2"):
        commit(store, stage_prefix(TENANT, digest), "1", {"a": b"1"})
    says = call("delete", "abcd", code=2)
    assert "stage abcd1, stage abcd2; give more of it" in says
    assert len(call("list")) == 2


def test_edits_of_other_versions_are_listed_and_deleted(filled, call, store):
    commit(store, edit_prefix(TENANT, "old1"), "1", {"edited.png": b"1"}, {"provenance": {"a": 1}})
    commit(store, edit_prefix(TENANT, "old2"), "1", {"edited.png": b"1"})
    assert len(call("list", "--kind", "edits")) == 5
    (first, second) = call("delete", "old1", "old2")
    assert (first["edits"], first["stages"], second["inputs"]) == (["old1"], [], [])


def test_an_empty_store_has_nothing(call):
    assert "0 stages, 0 edits" in call("list")
