"""The choice of a method from the command line, of one picture and of many, in this process."""

import json

from typer.testing import CliRunner

from jobs.edit import app as edit
from jobs.edit_many import app as edit_many

SETTINGS = {"style_diffusion": {"num_steps": 2, "inner_steps": 1}}
PARAMETERS = json.dumps({"style_diffusion": {"num_steps": 2, "inner_steps": 1}})


def test_one_edit_says_what_was_chosen(tiny_set, picture, tmp_path):
    options = ["--image", str(picture), "--source", "a red ball", "--target", "a blue ball"]
    options += ["--method", "auto", "--param", f"settings={PARAMETERS}", "--model-set", tiny_set]
    options += ["--store", str(tmp_path / "store"), "--inline"]
    result = CliRunner().invoke(edit, options)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "chosen style diffusion" in text
    assert "not edit infinity the model set has not its networks" in text.replace("_", " ")


def test_a_manifest_and_its_report(tiny_set, manifest, tmp_path):
    path = manifest(
        {"method": "auto", "parameters": {"settings": SETTINGS}}, {"target_prompt": "a"}
    )
    page = tmp_path / "report.html"
    options = ["--manifest", path, "--output", str(tmp_path / "store"), "--inline"]
    options += ["--model-set", tiny_set, "--report-file", str(page)]
    result = CliRunner().invoke(edit_many, options)
    assert result.exit_code == 0, result.output
    assert "is the only method that could be tried" in page.read_text()
