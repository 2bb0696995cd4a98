"""What the zoo's measurements say of answers that are known to be right, or wrong."""

import math
import shutil

import pytest
import torch

from farm.errors import InvalidRequestError, ModelSetError
from farm.masks import dilate
from farm.zoo.judge import load_judge
from farm.zoo.matching import match_each, match_prompts
from farm.zoo.measures.bench import Bench, by_group, means, stacked
from farm.zoo.measures.catalogue import LINES, MEASURES, Line, check_lines, find_measures
from farm.zoo.measures.clip_pairs import distinct_scenes
from farm.zoo.measures.hole_scores import Inpainted, drawn_as_asked, seam_figures
from farm.zoo.measures.hole_tasks import KINDS, hole_tasks
from farm.zoo.measures.saliency import saliency_cases
from farm.zoo.measures.text_to_image import prompts_with
from farm.zoo.measures.unrounded import write_unrounded
from farm.zoo.measures.word_attention import AttentionReader, measure_word_attention
from farm.zoo.recipes.bsq_vae import BsqVaeRecipe
from farm.zoo.recipes.clip import ClipRecipe
from farm.zoo.recipes.infinity import InfinityRecipe
from farm.zoo.recipes.loop import LoopConfig, Training
from farm.zoo.recipes.t5 import T5Recipe
from farm.zoo.recipes.unet import UNetRecipe
from farm.zoo.scenes.captions import caption
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import SHAPES
from farm.zoo.weights import SCENES_FOLDER


@pytest.fixture(scope="module")
def judge():
    return load_judge(SCENES_FOLDER)


@pytest.fixture(scope="module")
def tasks():
    return hole_tasks(48, seed=5)


def test_true_pictures_match_their_prompts_and_those_of_others_do_not(judge):
    scenes = prompts_with(2, 32, seed=3)
    assert (scenes.count == 2).all()
    images = render(scenes).images
    assert sum(row["all"] for row in match_each(judge, images, scenes)) >= 30
    assert match_prompts(judge, images, scenes)["both"] >= 0.95
    wrong = match_each(judge, images.flip(0), scenes)
    assert sum(row["all"] for row in wrong) <= 2


def test_holes_erase_the_object_and_leave_a_margin(tasks):
    assert tasks.kinds[:4] == (*KINDS, "redraw")
    rows = torch.arange(len(tasks))
    redraw = torch.tensor([kind == "redraw" for kind in tasks.kinds])
    masks = render(tasks.wanted).masks[rows, tasks.slot][redraw]
    outside = 1 - tasks.holes[redraw, 0]
    inside_frame = torch.zeros(64, 64)
    inside_frame[1:-1, 1:-1] = 1
    assert (dilate(masks, 1) * outside * inside_frame).max() == 0


def test_asked_objects_are_found_in_true_pictures_and_not_in_others(judge, tasks):
    right = drawn_as_asked(judge, render(tasks.wanted).images, tasks)
    # a replaced object has the old one's size, so nearly all are as readable as any render
    assert sum(row["appears"] for row in right) >= 45
    left = drawn_as_asked(judge, tasks.images, tasks)
    appears = {
        kind: [row["appears"] for row, k in zip(left, tasks.kinds, strict=True) if k == kind]
        for kind in KINDS
    }
    assert not any(appears["add"])
    assert not any(appears["replace"])
    assert sum(appears["redraw"]) >= 15  # nothing was erased yet: it is still there


def test_seams_count_what_is_outside_the_hole_alone(tasks):
    noise = 0.1 * torch.randn(tasks.images.shape, generator=torch.Generator().manual_seed(0))
    inside = tasks.images + noise * tasks.holes
    nearby = tasks.images + noise * dilate(tasks.holes, 4)
    everywhere = tasks.images + noise
    found = seam_figures(Inpainted(drawn=nearby, kept=inside), everywhere, tasks)
    means = {name: values.nanmean().item() for name, values in found.items()}
    # 20 dB is noise of a tenth; 100 is what equal pictures get
    assert means["bound_outside_psnr"] == pytest.approx(20, abs=0.3)
    assert means["drawn_outside_psnr"] == pytest.approx(100)
    assert means["drawn_border_psnr"] == pytest.approx(20, abs=0.3)
    assert means["kept_border_psnr"] == pytest.approx(100)
    assert means["pasted_border_psnr"] > 23  # a ramp from one half to nothing
    assert means["seam_loss"] == pytest.approx(-80, abs=0.3)


def test_the_maps_are_read_at_the_nouns_and_find_their_objects():
    bench = Bench(SCENES_FOLDER, cases=8, seed=2)
    reader = AttentionReader(bench)
    scenes = sample_scenes(2, generator_for("heldout", 6), split="heldout", two_share=1.0)
    words = ("<start>", *caption(scenes, 0).split())
    nouns = [words[t] for t in reader.tokens(scenes, 0, SHAPES)]
    assert nouns == [SHAPES[int(s)] for s in scenes.shape[0, : int(scenes.count[0])]]
    maps = reader.read(scenes, render(scenes), torch.Generator().manual_seed(0)).by_band
    assert set(maps) == {"all", "early", "middle", "late"}
    # attention is a distribution over the tokens at every place
    torch.testing.assert_close(maps["all"].sum(1), torch.ones(2, 16, 16))
    bands = {"early": 6, "middle": 7, "late": 7}  # of the timesteps 951, 901, ..., 1
    mean = sum(maps[band] * number for band, number in bands.items()) / 20
    torch.testing.assert_close(maps["all"], mean)
    figures = measure_word_attention(bench)["all"]
    assert figures["noun_pointing"]["mean"] >= 0.8  # grounded maps; chance is about .15


def test_a_saliency_map_that_is_the_mask_is_perfect_and_its_opposite_is_not():
    scenes = sample_scenes(16, generator_for("heldout", 7), split="heldout", two_share=0.5)
    masks = render(scenes).masks
    union = masks.amax(1, keepdim=True)
    good = saliency_cases(union.repeat(1, 2, 1, 1), masks)
    for name in ("midpoint_iou", "pointing", "reached", "head_1_midpoint_iou"):
        assert good[name].min() == 1, name
    bad = saliency_cases(1 - union, masks)
    assert bad["midpoint_iou"].max() == 0
    assert bad["reached"].max() == 0
    one_of_two = saliency_cases(masks[:, :1], masks)
    two = scenes.count == 2
    assert (one_of_two["reached"][two] == 0.5).all()
    assert (one_of_two["reached"][~two] == 1).all()


def test_captions_among_which_one_is_retrieved_all_differ():
    scenes = distinct_scenes(256, generator_for("heldout", 8))
    assert len({caption(scenes, i) for i in range(256)}) == 256


def test_means_leave_out_what_is_not_there_and_groups_are_apart():
    cases = stacked([{"a": 1.0, "b": 2.0}, {"a": 0.0}, {"a": 1.0}])
    assert means(cases)["b"] == {"mean": 2.0, "low": 2.0, "high": 2.0, "cases": 1}
    grouped = by_group(cases, {"x": torch.tensor([True, False, True]), "y": torch.zeros(3) > 0})
    assert grouped["x"]["a"]["mean"] == 1
    assert grouped["all"]["a"]["mean"] == pytest.approx(2 / 3)
    assert "y" not in grouped
    assert means({"a": torch.tensor([math.nan])})["a"]["mean"] is None


def test_lines_are_checked_against_the_means():
    def figure(mean):
        return {"mean": mean, "low": 0.0, "high": 1.0, "cases": 4}

    means = {"noun_pointing": 0.95, "noun_midpoint_iou": 0.4}
    figures = {"attention": {"all": {name: figure(mean) for name, mean in means.items()}}}
    checked = {line["figure"]: line["met"] for line in check_lines(figures)}
    assert checked == {
        "attention/all/noun_pointing": True,
        "attention/all/noun_midpoint_iou": False,
    }
    seam = Line(("inpainting", "all", "seam_loss"), 1.0, at_most=True)
    assert (seam.is_met(0.5), seam.is_met(1.5)) == (True, False)


def test_every_line_belongs_to_a_measurement_and_what_is_missing_is_said(tmp_path):
    assert {line.path[0] for line in LINES} <= set(MEASURES)
    with pytest.raises(InvalidRequestError, match="needs clip"):
        find_measures(["clip"], Bench(tmp_path))
    with pytest.raises(InvalidRequestError, match="there are vae"):
        find_measures(["nothing"], Bench(tmp_path))
    assert find_measures([], Bench(tmp_path)) == {}


def test_unrounded_networks_are_the_averages_that_were_exported(tmp_path):
    recipe = UNetRecipe(networks=SCENES_FOLDER)
    config = LoopConfig(steps=1, batch_size=1, learning_rate=1e-3)
    training = Training(recipe, config, tmp_path / "states")
    training.average["conv_in.bias"] += 1e-4
    training.save()
    networks = tmp_path / "networks"
    recipe.export(training.averaged(), networks)
    assert write_unrounded(networks, tmp_path / "states", tmp_path / "fp32") == ["unet"]
    found = recipe.load(tmp_path / "fp32").state_dict()
    for name, value in training.average.items():
        assert torch.equal(found[name], value)
    training.average["conv_in.bias"] += 1
    training.save()
    with pytest.raises(ModelSetError, match=r"conv_in\.bias differs"):
        write_unrounded(networks, tmp_path / "states", tmp_path / "again")


@pytest.mark.parametrize(
    "recipe",
    [
        lambda: BsqVaeRecipe(start_from=SCENES_FOLDER / "bsq_vae"),
        lambda: T5Recipe(networks=SCENES_FOLDER),
        lambda: InfinityRecipe(start_from=SCENES_FOLDER / "infinity", networks=SCENES_FOLDER),
    ],
    ids=["bsq_vae", "t5", "infinity"],
)
def test_unrounded_networks_of_other_layouts_load_as_their_averages(recipe, tmp_path):
    """A prefix, a second file, facts in the header: each part has one of its own."""
    made = recipe()
    training = Training(made, LoopConfig(1, 1, 1e-3), tmp_path / "states")
    training.save()
    made.export(training.averaged(), tmp_path / "networks")
    shutil.copytree(SCENES_FOLDER / "clip", tmp_path / "networks" / "clip")
    replaced = write_unrounded(tmp_path / "networks", tmp_path / "states", tmp_path / "fp32")
    assert replaced == [made.name]
    found = made.load(tmp_path / "fp32").state_dict()
    for name, value in training.average.items():
        assert torch.equal(found[name], value), name


def test_an_unrounded_clip_is_not_rounded_again_as_it_is_loaded(tmp_path):
    recipe = ClipRecipe(start_from=SCENES_FOLDER / "clip")
    training = Training(recipe, LoopConfig(1, 6, 1e-3), tmp_path / "states")
    training.average["logit_scale"] += 1e-5  # less than fp16 can tell apart
    training.save()
    recipe.export(training.averaged(), tmp_path / "networks")
    write_unrounded(tmp_path / "networks", tmp_path / "states", tmp_path / "fp32")
    found = recipe.load(tmp_path / "fp32").get_parameter("logit_scale")
    assert torch.equal(found, training.average["logit_scale"])
