"""Arms and their comparison, measures of each method, on the zoo's networks with few steps."""

import json

import pytest
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from farm.backbones.host import OperationHost
from farm.backbones.networks import load_networks
from farm.errors import InvalidRequestError
from farm.images import encode_png
from farm.requests import parse_request
from farm.zoo.model_sets import open_model_set
from farm.zoo.scenes.edits import sample_edits
from jobs.evaluate import app
from jobs.evaluation.arms import plan_arms
from jobs.evaluation.auto import chosen_shares
from jobs.evaluation.baselines import BaselineEdit, draw, sdedit_config
from jobs.evaluation.cases import make_cases, make_trials
from jobs.evaluation.standard import STANDARD

DIFFUSION = ("--param=num_steps=2", "--param=inner_steps=1")
REGIONS = (
    "--param=point_number=2",
    "--param=max_window_size=3",
    "--param=num_steps=2",
    "--param=preview_steps=1",
    "--param=finalists=1",
    "--param=epochs=1",
)


@pytest.fixture
def evaluate(tmp_path):
    def evaluate(*options: str) -> tuple[int, dict]:
        where = ("--store", str(tmp_path / "store"), "--inline")
        file = tmp_path / "figures.json"
        result = CliRunner().invoke(app, [*where, "--json", str(file), "--seed", "5", *options])
        assert file.exists(), result.output
        return result.exit_code, json.loads(file.read_text())

    return evaluate


def test_arms_start_from_the_default_arm_s_parameters_unless_their_method_is_another():
    default, plain, other = plan_arms(
        ["style_diffusion"],
        {"num_steps": 8},
        ["plain:learned=nothing,tau_c=[0.2,0.4]", "regions:method=learnable_regions"],
    )
    assert (default.name, default.parameters) == ("default", {"num_steps": 8})
    assert plain.parameters == {"num_steps": 8, "learned": "nothing", "tau_c": [0.2, 0.4]}
    assert (other.method, other.parameters) == ("learnable_regions", {})


def test_further_methods_and_what_each_is_compared_with():
    methods = ["learnable_regions", "style_diffusion"]
    arms = plan_arms(methods, {"finalists": 2}, [], standard=True)
    names = [arm.name for arm in arms]
    assert names[:2] == ["default", "style_diffusion"]
    assert {"ddim-p2p", "direct-p2p", "null-text-p2p", "sdedit"} <= set(names)
    of = {arm.name: arm for arm in arms}
    assert of["style_diffusion"].parameters == {}, "parameters are those of the first method"
    assert of["learnable_regions-untrained"].parameters == {"finalists": 2, "sizes": "untrained"}
    assert of["direct-p2p"].parameters["learned"] == "direct"
    models, cases = open_model_set("scenes"), make_cases(sample_edits(1, 3, ("shape",)))
    trials = make_trials(arms, cases, models)
    assert len({trial.prepared.edit_id for trial in trials if trial.baseline is None}) == len(
        [arm for arm in arms if arm.method != "sdedit"]
    )
    with pytest.raises(InvalidRequestError, match="style_diffusion is there twice"):
        plan_arms([*methods, "style_diffusion"], {}, [])


def test_every_standard_arm_can_be_asked_for():
    for method, texts in STANDARD.items():
        for arm in plan_arms([method], {}, texts)[1:]:
            if arm.method == method:
                fields = {"image": "a.png", "source_prompt": "a cat", "target_prompt": "a dog"}
                fields |= {"method": method, "parameters": arm.parameters}
                assert parse_request(fields | {"target_word": "cat"}).method == method


@pytest.mark.parametrize(
    ("method", "texts", "says"),
    [
        ("magic", [], "no method 'magic'"),
        ("style_diffusion", ["plain"], "write NAME:PARAMETER=VALUE"),
        ("style_diffusion", ["a:tau_c=1", "a:tau_c=0"], "a is there twice"),
        ("style_diffusion", ["default:tau_c=1"], "default is there twice"),
        ("style_diffusion", ["a:method=magic"], "no method 'magic'"),
        ("style_diffusion", ["a:tau_c"], "write NAME=VALUE"),
        ("sdedit", [], "no method 'sdedit'"),
    ],
)
def test_arms_that_are_none_are_refused(method, texts, says):
    with pytest.raises(InvalidRequestError, match=says):
        plan_arms([method], {}, texts)


def test_every_arm_does_every_edit_and_a_wrong_parameter_is_found_before_any_work():
    models = open_model_set("scenes")
    cases = make_cases(sample_edits(2, 3, ("shape",)))
    arms = plan_arms(
        ["style_diffusion"], {}, ["few:num_steps=5", "regions:method=learnable_regions"]
    )
    trials = make_trials(arms, cases, models)
    assert [trial.arm.name for trial in trials] == ["default"] * 2 + ["few"] * 2 + ["regions"] * 2
    assert len({trial.prepared.edit_id for trial in trials}) == 6
    assert {trial.prepared.request.method for trial in trials[-2:]} == {"learnable_regions"}
    with pytest.raises(InvalidRequestError, match="no such field"):
        make_trials(plan_arms(["style_diffusion"], {}, ["a:sizes=all"]), cases, models)


def test_style_diffusion_and_an_arm_without_training(evaluate):
    code, record = evaluate(
        "--edits=2",
        "--types=colour",
        *DIFFUSION,
        "--arm=plain:learned=nothing,inner_steps=null",
        "--arm=sdedit:method=sdedit,num_steps=4,strength=0.5",
    )
    assert code == 0
    assert record["summary"]["edits"] == len(record["edits"]) == 2
    assert record["summary"]["plain_ddim_psnr"] is not None
    plain = record["arms"]["plain"]
    # what learns nothing reconstructs as plain DDIM does, up to the rounding of a PNG
    for entry in plain["edits"]:
        assert entry["reconstruction_psnr"] == pytest.approx(entry["plain_ddim_psnr"], abs=0.1)
    assert plain["summary"]["calls"].get("unet_backward", 0) == 0
    assert record["summary"]["calls"]["unet_backward"] > 0
    noised = record["arms"]["sdedit"]["summary"]
    assert noised["calls"] == {"text_forward": 2, "vae_encode": 1, "unet_forward": 2 * 2} | {
        "vae_decode": 1
    }
    assert noised["region_iou"] is None
    assert noised["bound_psnr"] == record["summary"]["bound_psnr"]
    difference = record["differences"]["plain"]["reconstruction_psnr"]
    means = record["summary"]["reconstruction_psnr"], plain["summary"]["reconstruction_psnr"]
    assert difference["mean"] == pytest.approx(means[0] - means[1], rel=1e-5)
    assert difference["edits"] == 2
    assert set(record["differences"]["plain"]["by_type"]) == {"colour"}


def test_sdedit_at_full_strength_starts_from_noise_and_at_little_strength_from_the_source():
    models = open_model_set("scenes")
    host = OperationHost(load_networks(models.folder, models.spec, "cpu"))
    (case,) = make_cases(sample_edits(1, 5, ("colour",)))
    source = case.truth.source.images[0]

    def drawn(picture: Tensor, strength: float) -> Tensor:
        config = sdedit_config(models, {"num_steps": 10, "strength": strength})
        edit = BaselineEdit("a", config, case.edit.target_prompt, encode_png(picture), models)
        return draw(host, edit).image

    def distance(one: Tensor, other: Tensor) -> float:
        return (one - other).square().mean().item()

    other = source.flip(-1)
    little, much, whole = (drawn(source, s) for s in (0.1, 0.6, 1.0))
    assert distance(little, source) < distance(much, source)
    # the further from the source it starts, the less it matters which source that was
    assert distance(whole, drawn(other, 1.0)) < distance(little, drawn(other, 0.1)) / 4
    with pytest.raises(InvalidRequestError, match="sdedit: strength"):
        sdedit_config(models, {"strength": 0})


def test_learnable_regions_with_arms_of_its_own(evaluate):
    code, record = evaluate(
        "--edits=1",
        "--method=learnable_regions",
        "--types=shape",
        *REGIONS,
        "--arm=argmin:sizes=argmin",
        "--arm=all:sizes=all,finalists=100",
    )
    assert code == 0
    (edit,) = record["edits"]
    assert 0 <= edit["region_iou"] <= edit["finalists_iou"] <= edit["oracle_iou"] <= 1
    assert edit["argmin_loss"] <= edit["chosen_loss"]
    assert edit["reconstruction_psnr"] is None
    assert edit["bound_psnr"] is not None
    assert record["arms"]["argmin"]["edits"][0]["chosen_loss"] == edit["argmin_loss"]
    everything = record["arms"]["all"]["edits"][0]
    assert everything["oracle_iou"] == everything["finalists_iou"]
    assert everything["full_renders_worth"] > edit["full_renders_worth"]


def test_the_choice_is_measured_as_what_it_chose_beside_single_methods(evaluate, tmp_path):
    settings = {
        "style_diffusion": {"num_steps": 2, "inner_steps": 1},
        "learnable_regions": dict(option[8:].split("=") for option in REGIONS),
    }
    code, record = evaluate(
        "--edits=1",
        "--types=colour",
        "--method=style_diffusion",
        *DIFFUSION,
        f"--arm=auto:method=auto,methods={json.dumps([*settings])},settings={json.dumps(settings)}",
        f"--pictures={tmp_path / 'pictures'}",
        f"--figure={tmp_path / 'figure.svg'}",
    )
    assert code == 0
    (edit,) = record["arms"]["auto"]["edits"]
    shares = chosen_shares([edit])
    assert sum(shares.values()) == 1
    assert set(shares) == {"style_diffusion", "learnable_regions"}
    assert edit["bound_psnr"] == record["edits"][0]["bound_psnr"]
    # it costs what it tried too, although the first arm had made the inversion
    assert edit["accelerator_seconds"] > 0
    for name in ("style_diffusion", "auto"):
        picture = Image.open(tmp_path / "pictures" / f"{name}.png")
        assert picture.width > 3 * 3 * 96
    assert "<circle" in (tmp_path / "figure.svg").read_text()


def test_edits_that_are_in_the_store_are_not_run_again(evaluate):
    options = ("--edits=1", "--types=colour", *DIFFUSION)
    _, first = evaluate(*options)
    _, second = evaluate(*options)
    assert first["edits"] == second["edits"]
