import json

import pytest

from farm.errors import InvalidManifestError
from jobs.import_options import ImportOptions
from jobs.manifests import BrokenLine, ManifestLine, read_manifest

LINE = {"image": "a.png", "source_prompt": "a red ball", "target_prompt": "a blue ball"}


def line_of(**fields) -> bytes:
    return json.dumps(LINE | fields).encode()


@pytest.fixture
def parse(tmp_path):
    def parse(*lines: bytes, model_set: str = "scenes", ending: bytes = b"\n"):
        path = tmp_path / "manifest.jsonl"
        path.write_bytes(ending.join(lines))
        return list(read_manifest(path, ImportOptions(model_set)))

    return parse


def test_good_lines_keep_their_numbers_and_names(parse):
    first, second = parse(line_of(id="ball"), b"", b"  \t", line_of(seed=3))
    assert (first.number, first.name, first.request.source_prompt) == (1, "ball", "a red ball")
    assert (second.number, second.name, second.request.seed) == (4, "line-4", 3)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_byte_order_mark_and_line_ends_are_no_content(parse, ending):
    lines = parse(b"\xef\xbb\xbf" + line_of(id="a"), line_of(id="b"), b"", ending=ending)
    assert [line.name for line in lines] == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"image": "a.png",', "not JSON"),
        (b"[1, 2]", "a JSON object is expected, found [1, 2]"),
        (b"\xff\xfe{}", "byte 1 is not UTF-8"),
        (line_of(colour="red"), "colour: no such field"),
        (
            line_of(parameters={"tau_c": 1.5}),
            "tau_c: 1.5 is outside 0 to 1",
        ),
        (line_of(method="magic"), "magic"),
        (b'{"image": "a.png"}', "source_prompt: Field required"),
        (line_of(target_prompt="a red ball"), "nothing to edit"),
        (line_of(seed=1)[:-1] + b', "seed": 2}', "seed: given twice"),
        (line_of(truth=7), "truth: the path of a picture is expected, found 7"),
        (line_of(model_set="sd15"), "'sd15' in a job that runs 'scenes'"),
        (line_of(source_prompt="x" * 70_000), "longer than 64 KiB"),
        (b"[" * 60_000, "nested too deeply"),
    ],
)
def test_a_broken_line_says_why_and_harms_no_other(parse, data, says):
    before, broken, after = parse(line_of(id="a"), data, line_of(id="b"))
    assert isinstance(before, ManifestLine)
    assert isinstance(after, ManifestLine)
    assert after.number == 3
    assert isinstance(broken, BrokenLine)
    assert broken.error.message.startswith("line 2: ")
    assert says in broken.error.message


def test_the_second_line_with_an_id_is_refused_and_names_the_first(parse):
    first, second, other = parse(line_of(id="a"), line_of(id="a", seed=1), line_of(id="b"))
    assert isinstance(first, ManifestLine)
    assert isinstance(other, ManifestLine)
    assert isinstance(second, BrokenLine)
    assert "'a' is already the id of line 1" in second.error.message


def test_a_line_of_exactly_the_limit_is_read(parse):
    padding = 64 * 1024 - len(line_of())
    (line,) = parse(line_of() + b" " * padding, ending=b"")
    assert isinstance(line, ManifestLine)
    (line,) = parse(line_of() + b" " * (padding + 1), ending=b"")
    assert isinstance(line, BrokenLine)


def test_the_jobs_model_set_is_the_default_and_truth_is_not_part_of_the_request(parse):
    (line,) = parse(line_of(truth="true.png"), model_set="sd15")
    assert line.request.model_set == "sd15"
    assert line.truth == "true.png"
    assert "truth" not in line.request.model_dump()


def test_lines_are_read_only_as_they_are_asked_for(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(line_of(id="a") + b"\n")
    lines = read_manifest(path, ImportOptions("scenes"))
    assert next(lines).name == "a"
    with path.open("ab") as file:
        file.write(line_of(id="b") + b"\n")
    assert next(lines).name == "b"


def test_a_missing_manifest_is_one_clear_error(tmp_path):
    with pytest.raises(InvalidManifestError, match="No such file"):
        list(read_manifest(tmp_path / "none.jsonl", ImportOptions("scenes")))
