"""PIE-Bench through the farm: a small folder of scenes in its form, in this process."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from farm.errors import InvalidManifestError, InvalidRequestError, ModelSetError
from farm.metrics.image_reward import load_image_reward
from farm.metrics.pie_masks import decode_runs, encode_runs
from farm.zoo.model_sets import open_model_set
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.vocabulary import EDIT_TYPES
from jobs.evaluate import app
from jobs.evaluation.arms import plan_arms
from jobs.evaluation.pie_cases import make_trials, read_benchmark
from jobs.evaluation.pie_run import points
from jobs.evaluation.pie_scenes import write_pie_scenes
from jobs.importers.pie import CATEGORIES

QUICK = ("--param=num_steps=2", "--param=inner_steps=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("pie")
    write_pie_scenes(where, sample_edits(6, 7, EDIT_TYPES))
    return where


def test_runs_are_those_of_the_mask():
    mask = (torch.rand(1, 9, 13, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert torch.equal(decode_runs(encode_runs(mask), height=9, width=13, border=False), mask)
    assert encode_runs(torch.zeros(1, 3, 3)) == []
    assert encode_runs(torch.ones(1, 3, 3)) == [0, 9]


def test_scenes_in_the_benchmark_s_form_are_read_as_the_benchmark(folder):
    cases, edits = read_benchmark(folder, None), sample_edits(6, 7, EDIT_TYPES)
    assert [case.category for case in cases] == ["6", "1", "7", "8", "2", "3"]
    for case, edit in zip(cases, edits, strict=True):
        assert (case.source_prompt, case.target_prompt) == (edit.source_prompt, edit.target_prompt)
        region = (edit_truth(edit).region > 0.5).float()
        assert torch.equal(case.mask(side=64, convention="corrected")[0], region)
        assert case.mask(side=64)[0, 0].min() == 1, "the released code sets the border"
    assert [case.blended is None for case in cases] == [False] * 4 + [True] * 2
    assert len(read_benchmark(folder, 2)) == 2
    assert read_benchmark(folder / "mapping_file.json", None) == cases


def test_a_benchmark_that_is_not_whole_is_refused(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (picture, *_) = sorted(broken.glob("annotation_images/*/*.png"))
    picture.unlink()
    with pytest.raises(InvalidManifestError, match=r"1 entries are wrong.*there is no annotation"):
        read_benchmark(broken, None)
    with pytest.raises(InvalidManifestError, match="cannot read"):
        read_benchmark(tmp_path / "nowhere", None)


def test_an_arm_that_refuses_every_case_is_an_error_and_a_single_refusal_is_an_outcome(folder):
    models, cases = open_model_set("scenes"), read_benchmark(folder, None)
    arms = plan_arms(["style_diffusion"], {"edit_type": "replace"}, [])
    trials, refused = make_trials(arms, cases, folder, models)
    # words are added and removed in the last two, so they cannot be replaced one for one
    assert (len(trials), [one.case.category for one in refused]) == (4, ["2", "3"])
    wrong = plan_arms(["style_diffusion"], {}, ["a:colour=red"])
    with pytest.raises(InvalidRequestError, match=r"a: .*no such field"):
        make_trials(wrong, cases, folder, models)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    where = tmp_path_factory.mktemp("run")
    file = where / "pie.json"

    def run(*options: str) -> tuple[int, dict, str]:
        given = ["--benchmark", "pie", str(folder), "--inline", "--edits", "3", *QUICK]
        given += ["--store", str(where / "store"), "--json", str(file), *options]
        result = CliRunner().invoke(app, given)
        assert file.exists(), result.output
        return result.exit_code, json.loads(file.read_text()), result.output

    return run


ARMS = (
    "--arm=direct:learned=direct,inner_steps=null",
    "--arm=sdedit:method=sdedit,num_steps=2",
)


def test_every_arm_has_its_columns_by_category_and_what_lies_between(run):
    code, record, output = run(*ARMS)
    assert code == 0, output
    assert list(record["arms"]) == ["default", "direct", "sdedit"]
    default = record["arms"]["default"]
    assert list(default["categories"]) == ["1", "6", "7", "all"]
    assert [edit["category"] for edit in default["edits"]] == ["6", "1", "7"]
    for key in ("1", "6", "7"):
        assert CATEGORIES[key].split()[-1] in output
    columns = set(default["figures"])
    assert {"psnr_unedited", "clip_whole[scenes-clip]", "accelerator_seconds"} <= columns
    for name in ("psnr_unedited", "clip_edited[scenes-clip]"):
        values = [edit[name] for edit in default["edits"]]
        mean = sum(values) / 3
        assert default["figures"][name]["mean"] == pytest.approx(mean, rel=1e-5)
        assert default["categories"]["all"][name] == pytest.approx(mean, rel=1e-5)
        other = [edit[name] for edit in record["arms"]["sdedit"]["edits"]]
        between = record["differences"]["sdedit"][name]
        assert between["mean"] == pytest.approx(mean - sum(other) / 3, rel=1e-4, abs=1e-6)
        assert between["low"] <= between["mean"] <= between["high"]
    assert [point.name for point in points(record)] == ["default", "direct", "sdedit"]
    # the same command again finds its edits, and measures the same
    _, again, _ = run(*ARMS)
    for name in ("default", "direct"):
        assert again["arms"][name]["edits"] == record["arms"][name]["edits"]


def test_what_is_missing_is_said_before_anything_is_computed(folder, tmp_path):
    def said(*options: str) -> str:
        result = CliRunner().invoke(app, [*options, "--store", str(tmp_path / "s"), "--inline"])
        assert result.exit_code == 2, result.output
        assert not (tmp_path / "s").exists() or not list((tmp_path / "s").glob("tenants/*/edits"))
        return " ".join(result.output.split())

    pie = ("--benchmark", "pie", str(folder))
    absent = said(*pie, "--weights", str(tmp_path / "weights"))
    for name in ("dino-vitb8", "squeezenet1_1", "clip-vit-large-patch14"):
        assert name in absent
    assert "image-reward cannot be imported" in said(*pie, "--image-reward")
    assert "released and corrected" in said(*pie, "--convention", "own")
    assert "needs its folder" in said("--benchmark", "pie")
    assert "no benchmark 'tedbench'" in said("--benchmark", "tedbench")
    assert "scenes are drawn" in said(str(folder))
    with pytest.raises(ModelSetError, match=r"ImageReward\.pt is missing"):
        load_image_reward(tmp_path)
