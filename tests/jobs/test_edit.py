"""One edit on tiny real networks in this process."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from farm.errors import InvalidRequestError
from farm.images import decode_image
from jobs.edit import app, parse_parameter
from tests.jobs.conftest import LINE, QUICK


@pytest.fixture
def edit(tiny_set, picture, tmp_path):
    def edit(*options: str):
        prompts = ["--source", LINE["source_prompt"], "--target", LINE["target_prompt"]]
        where = ["--model-set", tiny_set, "--store", str(tmp_path / "store"), "--inline"]
        quick = [f"--param={name}={value}" for name, value in QUICK.items()]
        arguments = ["--image", str(picture), *prompts, *where, *quick, *options]
        return CliRunner().invoke(app, arguments)

    return edit


def test_an_edit_is_stored_written_out_and_found_again(edit, tmp_path):
    output = tmp_path / "new" / "blue.png"
    first = edit("--output", str(output), "--json")
    assert first.exit_code == 0, first.stderr
    result = json.loads(first.stdout)
    stored = (tmp_path / "store" / result["files"]["edited.png"]).read_bytes()
    assert output.read_bytes() == stored
    assert decode_image(stored).image.shape == (3, 20, 20)
    again = json.loads(edit("--json").stdout)
    assert again["reused"]
    assert again["attempt"] == result["attempt"]


def test_without_json_the_result_is_a_table(edit):
    result = edit()
    assert result.exit_code == 0, result.stderr
    assert "network passes" in result.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--param", "tau_c=2"], "parameters.tau_c: 2 is outside 0 to 1"),
        (["--param", "tau=0.5"], "parameters.tau: no such field"),
        (["--param", "0.5"], "write NAME=VALUE"),
        (["--method", "magic"], "style_diffusion"),
        (["--seed", "-1"], "seed: Input should be greater than or equal to 0, found -1"),
        (["--target", "a red ball"], "nothing to edit"),
        (["--target", " "], "target_prompt is blank"),
        (["--word", "zebra"], "zebra"),
        (["--image", "none.png"], "No such file"),
        (["--image", "s3://bucket/a.png"], "only files can be read here"),
        (["--model-set", "nowhere"], "no model set 'nowhere'"),
    ],
)
def test_a_wrong_request_is_one_clear_line_and_exit_code_2(edit, tmp_path, options, says):
    result = edit(*options)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("output", "says"), [("file/blue.png", "is a file"), ("", "directory")])
def test_an_unwritable_output_is_refused_before_any_work(edit, tmp_path, output, says):
    (tmp_path / "file").write_text("")
    result = edit("--output", str(tmp_path / output))
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "file"}


def test_weights_that_differ_from_their_digests_are_not_used(edit, tiny_set, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(tiny_set, folder)
    weights = next((folder / "unet").glob("*.safetensors"))
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = edit("--model-set", str(folder))
    assert result.exit_code == 2
    assert f"{weights} has digest" in result.stderr


def test_an_unwritable_store_is_exit_code_3(edit, tmp_path):
    (tmp_path / "file").write_text("")
    result = edit("--store", str(tmp_path / "file" / "below"))
    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")
    assert "choose another" in result.stderr


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("tau_c=0.4", ("tau_c", 0.4)),
        ("local_blend=false", ("local_blend", False)),
        ("value_form=direct", ("value_form", "direct")),
        ('source_words=["ball"]', ("source_words", ["ball"])),
        ("x=", ("x", "")),
        ("x=a=b", ("x", "a=b")),
    ],
)
def test_parameters_are_json_or_text(text, pair):
    assert parse_parameter(text) == pair


@pytest.mark.parametrize("text", ["", "tau_c", "=0.4"])
def test_a_parameter_needs_a_name_and_a_value(text):
    with pytest.raises(InvalidRequestError, match="write NAME=VALUE"):
        parse_parameter(text)
