"""Manifest, pictures and store in a bucket; nothing on this machine."""

import json
from urllib.parse import parse_qs

import pytest
from typer.testing import CliRunner

from farm.errors import InvalidImageError, InvalidManifestError
from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from jobs import sources
from jobs.batch import Batch, Survey, check_lines, survey
from jobs.edit_many import app
from jobs.outcomes import FailedEdit
from jobs.sources import Pictures, local_copy
from tests.farm.storage.servers import BUCKET, WireToMoto, running_with_bucket
from tests.jobs.conftest import LINE
from tests.jobs.test_report_page import picture


@pytest.fixture(scope="module")
def wire():
    return WireToMoto()


@pytest.fixture(scope="module")
def options(wire):
    with running_with_bucket(wire) as endpoint:
        yield f"?endpoint_url={endpoint}&region=us-east-1"


@pytest.fixture
def bucket(options):
    store = open_store(f"s3://{BUCKET}{options}")
    store.put("in/pictures/a.png", picture(0, side=20))
    line = {"id": "a", "image": "pictures/a.png"} | LINE
    store.put("in/edits.jsonl", json.dumps(line).encode())
    return store


def test_a_job_reads_and_writes_a_bucket(bucket, options, tiny_set):
    arguments = ["--manifest", f"s3://{BUCKET}/in/edits.jsonl{options}"]
    arguments += ["--output", f"s3://{BUCKET}/out{options}", "--model-set", tiny_set]
    arguments += ["--inline", "--json"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.stderr
    (outcome,) = map(json.loads, first.stdout.splitlines())
    store = open_store(f"s3://{BUCKET}/out{options}")
    assert store.get(outcome["result"]["files"]["edited.png"])
    (job,) = store.names("tenants/default/jobs/")
    names = set(store.names(f"tenants/default/jobs/{job}/"))
    assert {"report.html", "outcomes.jsonl", "outcomes.csv", "status.json", "log"} <= names
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.stderr
    assert "0 edits to do, 1 in the store" in again.stderr


def test_a_store_that_ignores_conditions_is_refused_before_anything(wire, bucket, options):
    wire.ignored_headers.add("If-None-Match")
    try:
        arguments = ["--manifest", f"s3://{BUCKET}/in/edits.jsonl{options}", "--inline"]
        result = CliRunner().invoke(app, [*arguments, "--output", f"s3://{BUCKET}/bad{options}"])
    finally:
        wire.ignored_headers.clear()
    assert result.exit_code == 3
    assert "ignores If-None-Match" in result.stderr
    assert list(bucket.list("bad/")) == []


def test_a_signature_changes_with_the_picture(bucket, options):
    pictures = Pictures.beside(f"s3://{BUCKET}/in/edits.jsonl{options}")
    before = pictures.signature("pictures/a.png")
    assert before is not None
    assert pictures.signature("pictures/none.png") is None
    assert pictures.read("pictures/a.png") == bucket.get("in/pictures/a.png")
    with pytest.raises(InvalidImageError, match="there is no"):
        pictures.read("pictures/none.png")
    bucket.put("in/pictures/a.png", picture(1, side=24))
    later = Pictures.beside(f"s3://{BUCKET}/in/edits.jsonl{options}")
    assert later.signature("pictures/a.png") != before


def test_a_signature_costs_no_listing_of_what_lies_below(bucket, options, wire, monkeypatch):
    """A bucket may hold the store too; a folder is listed once, however rows are mixed."""
    asked = []
    real = WireToMoto.__call__

    def count(self, environ, start_response):
        asked.append(parse_qs(environ["QUERY_STRING"]))
        return real(self, environ, start_response)

    monkeypatch.setattr(sources, "_LISTED_FOLDERS", 2)
    for folder in "xyz":
        bucket.put(f"in/{folder}/a.png", b"1")
        bucket.put(f"in/{folder}/deep/down.png", b"1")
    pictures = Pictures.beside(f"s3://{BUCKET}/in/edits.jsonl{options}")
    monkeypatch.setattr(WireToMoto, "__call__", count)
    first = [pictures.signature(f"{folder}/a.png") for folder in "xyz"]
    again = [pictures.signature(f"{folder}/a.png") for folder in "xyzx"]
    assert None not in first
    assert again == [*first, first[0]]
    assert pictures.signature("x/none.png") is None
    listed = [query["prefix"][0] for query in asked]
    alone = ["in/x/a.png", "in/x/a.png", "in/x/none.png"]
    assert listed == ["in/x/", "in/y/", "in/z/", *alone]
    assert all(query["delimiter"] == ["/"] for query in asked)
    assert all("down" not in key for found in pictures._listed.values() for key in found)


def test_a_missing_manifest_is_one_clear_error(options):
    address = f"s3://{BUCKET}/in/none.jsonl{options}"
    result = CliRunner().invoke(app, ["--manifest", address])
    assert result.exit_code == 2
    assert "cannot read the manifest" in result.stderr


def test_files_have_signatures_too(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    pictures = Pictures.beside(str(tmp_path / "m.jsonl"))
    before = pictures.signature("a.png")
    path.write_bytes(b"22")
    assert pictures.signature("a.png") != before
    assert pictures.signature("none.png") is None
    with local_copy(str(path)) as copy:
        assert copy == path


@pytest.fixture
def batch(tmp_path, tiny_set, options):
    """A manifest beside the pictures of a bucket, with these pictures, in this order."""

    def batch(*images: str, where: str = f"s3://{BUCKET}/in/edits.jsonl") -> Batch:
        path = tmp_path / "edits.jsonl"
        lines = [{"image": image, "seed": n} | LINE for n, image in enumerate(images)]
        path.write_text("\n".join(map(json.dumps, lines)))
        address = where + options if where else ""
        store = open_store(str(tmp_path / "store"))
        return Batch(path, open_model_set(tiny_set), store, "default", "job", address=address)

    return batch


BAD_NAMES = [
    "../../a.png",
    "/pictures/a.png",
    "pictures/\u0000.png",
    "pictures/.hidden.png",
    "what?.png",
    "photo#1.png",
    "50%25.png",
    f"s3://{BUCKET}/in/photo#1.png",
    f"s3://{BUCKET}/in//a.png",
    "s3:///b.png",
    "s3://[x/b.png",
]


@pytest.mark.parametrize("name", [*BAD_NAMES, "s3://nowhere/a.png{options}"])
def test_a_picture_that_cannot_be_had_is_the_outcome_of_its_row(bucket, batch, options, name):
    good = "pictures/a.png"
    checked = batch(good, name.replace("{options}", options), good)
    found = Survey()
    (outcome,) = survey(checked, found)
    assert isinstance(outcome, FailedEdit)
    assert (outcome.line, outcome.kind, outcome.retryable) == (2, "InvalidImageError", False)
    assert (found.total, found.missing) == (3, 2)
    wrong = [line for line in check_lines(checked) if isinstance(line, FailedEdit)]
    assert [(line.line, line.message) for line in wrong] == [(2, outcome.message)]


def test_a_local_path_that_is_none_is_the_outcome_of_its_row(batch):
    checked = batch("a\u0000.png", where="")
    (outcome,) = survey(checked, Survey())
    assert isinstance(outcome, FailedEdit)
    assert "null byte" in outcome.message


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("./a.png", "in/a.png"),
        ("../a.png", "a.png"),
        ("x//a.png", "in/x/a.png"),
        ("x/../a.png", "in/a.png"),
        ("photo#1.png", "in/photo#1.png"),
        ("what?.png", "in/what?.png"),
        ("50%25.png", "in/50%25.png"),
        ("my ball.png", "in/my ball.png"),
    ],
)
def test_a_relative_name_is_a_name_as_it_stands(bucket, options, name, key):
    pictures = Pictures.beside(f"s3://{BUCKET}/in/edits.jsonl{options}")
    bucket.put(key, b"this one")
    try:
        assert pictures.read(name) == b"this one"
        assert pictures.signature(name) is not None
    finally:
        bucket.delete(key)


def test_a_manifest_at_no_address_is_one_clear_error():
    with (
        pytest.raises(InvalidManifestError, match="is no address"),
        local_copy("s3://[x/edits.jsonl"),
    ):
        pass
