"""Manifest, pictures and store in a bucket; nothing on this machine."""

import json

import pytest
from typer.testing import CliRunner

from farm.errors import InvalidImageError
from farm.storage.opening import open_store
from jobs.edit_many import app
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
