"""docs/style_diffusion.md names what is there."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm.metrics.weights import PUBLISHED
from farm.requests import StyleDiffusionParameters
from jobs.cli import app

TEXT = (Path(__file__).parents[3] / "docs" / "style_diffusion.md").read_text()
PROGRAM = (  # the seed's command lines and spec §7, "CLI"
    *("is_train", "is_1word", "use_wandb", "w_attnloss", "index", "sd_version"),
    *("num_inner_steps", "num_epoch", "prompt", "image_path", "target", "blend_word"),
    *("tau_v", "tau_c", "tau_s", "tau_u", "eq_params", "edit_type", "outdir", "prompts_path"),
    *("save_path", "from_case", "end_case", "seed"),
)


def test_every_parameter_of_the_program_has_its_row():
    table = TEXT[TEXT.index("| program | here |") : TEXT.index("## Its trained networks")]
    left = " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `--"))
    assert set(re.findall(r"--(\w+)", left)) == set(PROGRAM)


def test_named_parameters_are_parameters():
    named = set(re.findall(r"--param '?([a-z_]+)=", TEXT))
    assert named
    assert named <= StyleDiffusionParameters.model_fields.keys()


@pytest.mark.parametrize("command", ["edit", "edit-many", "artifacts list", "artifacts delete"])
def test_named_options_are_options(command):
    result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"})
    shown = set(re.findall(r"--[a-z][a-z-]+", result.output))
    right = [row.split("|")[2] for row in TEXT.splitlines() if row.startswith("| `--")]
    options = set(re.findall(r"--[a-z][a-z-]+", " ".join(right)))
    known = {"--from", "--from-case", "--end-case", "--param", "--output", "--model-set"}
    match command:
        case "edit-many":
            assert known <= shown
        case "edit":
            assert options - known <= shown
        case "artifacts list":
            assert {"--details", "--kind", "--json"} <= shown
        case _:
            assert "--keep-stages" in shown


def test_the_files_of_metric_weights_are_those_that_are_required():
    for network in PUBLISHED.values():
        for file in network.files:
            assert file in TEXT or file.partition("/")[0] + "/" in TEXT
