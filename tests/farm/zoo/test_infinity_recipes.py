"""The zoo's T5, BSQ autoencoder and Infinity: a handful of steps each, one after the other."""

import itertools
import random
import shutil

import pytest
import torch

from farm.backbones.infinity.loading import load_vae
from farm.backbones.infinity.networks import load_infinity_networks
from farm.backbones.infinity.tokenizer import TextTokenizer
from farm.errors import ModelSetError
from farm.threads import one_thread
from farm.zoo.judge import Judge
from farm.zoo.measures.bench import Bench
from farm.zoo.measures.next_scale import measure_bsq_vae, measure_infinity
from farm.zoo.measures.pictures import text_to_image_grid
from farm.zoo.measures.unrounded import write_unrounded
from farm.zoo.recipes.bsq_vae import BsqVaeRecipe
from farm.zoo.recipes.infinity import InfinityRecipe, scenes_infinity_spec
from farm.zoo.recipes.loop import LoopConfig, Recipe, Training, train_recipe
from farm.zoo.recipes.parts import find_part, install
from farm.zoo.recipes.t5 import INSTRUCTION, T5Recipe, scenes_text_tokenizer
from farm.zoo.recipes.word_sets import BACKGROUND_TAG, word_sets
from farm.zoo.scenes.captions import caption, varied_caption
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.weights import SCENES_FOLDER

STEPS = 4
NAMES = ("t5", "bsq_vae", "infinity")


@pytest.fixture(scope="module", autouse=True)
def single_threaded():
    with one_thread():
        yield


def recipe_of(name, exported):
    if name == "t5":
        return T5Recipe(networks=SCENES_FOLDER, held_out=16)
    if name == "bsq_vae":
        return BsqVaeRecipe(held_out=16)
    return InfinityRecipe(networks=exported, cache=exported.parent / "cache", pool=24, held_out=8)


def training_of(name, exported, folder):
    config = LoopConfig(
        steps=STEPS,
        batch_size=12,
        learning_rate=1e-3,
        warmup=1,
        checkpoint_every=STEPS // 2,
        evaluate_every=None,
    )
    return Training(recipe_of(name, exported), config, folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All three after a few steps, exported, each from those before."""
    base = tmp_path_factory.mktemp("infinity-zoo")
    exported = base / "export"
    trainings = {}
    for name in NAMES:
        trainings[name] = training = training_of(name, exported, base / "whole")
        assert isinstance(training.recipe, Recipe)
        before = {n: p.detach().clone() for n, p in training.parameters.items()}
        reports = list(train_recipe(training))
        assert all(torch.isfinite(torch.tensor(r.loss)) for r in reports)
        still = [n for n, p in training.parameters.items() if torch.equal(p, before[n])]
        assert not still, "every parameter is trained"
        training.recipe.export(training.averaged(), exported)
    return trainings, exported


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_ends_with_the_same_bits(trained, name, tmp_path):
    trainings, exported = trained
    first = training_of(name, exported, tmp_path)
    list(itertools.islice(train_recipe(first), STEPS // 2))
    second = training_of(name, exported, tmp_path)
    assert second.step == STEPS // 2
    list(train_recipe(second))
    for key, value in trainings[name].module.state_dict().items():
        assert torch.equal(second.module.state_dict()[key], value), key


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exported_is_loaded(trained, name):
    trainings, exported = trained
    expected = trainings[name].averaged().state_dict()
    loaded = trainings[name].recipe.load(exported).state_dict()
    assert loaded.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(loaded[key], value.half().float(), rtol=0, atol=0)


def test_together_they_are_a_model_set(trained):
    _, exported = trained
    spec = scenes_infinity_spec(exported)
    networks = load_infinity_networks(exported, spec, "cpu")
    assert spec.schedule("own").num_tokens == 130
    numbers = {n: sum(p.numel() for p in m.parameters()) for n, m in networks.modules().items()}
    assert 2 * sum(numbers.values()) < 9_000_000, f"bytes of {numbers} in half precision"
    found = TextTokenizer(exported / "t5", 96).encode(f"a photo of a red circle{INSTRUCTION}")
    assert found.ids == scenes_text_tokenizer().encode(found.prompt).ids


@pytest.fixture(scope="module")
def decoder(trained, tmp_path_factory):
    """A decoder that was trained by itself, beside its autoencoder."""
    exported = tmp_path_factory.mktemp("decoder") / "export"
    shutil.copytree(trained[1] / "bsq_vae", exported / "bsq_vae")
    recipe = find_part("bsq_decoder").recipe(exported, None)
    training = Training(recipe, LoopConfig(STEPS, 12, 1e-3, warmup=1), exported.parent / "states")
    list(train_recipe(training))
    recipe.export(training.averaged(), exported)
    return training, exported


def test_a_decoder_trained_by_itself_leaves_the_bits_as_they_are(decoder):
    training, exported = decoder
    assert training.parameters, "something is trained"
    assert all(".decoder." in name for name in training.parameters)
    whole, own = (load_vae(exported / name) for name in ("bsq_vae", "bsq_decoder"))
    for (name, before), after in zip(
        whole.state_dict().items(), own.state_dict().values(), strict=True
    ):
        assert torch.equal(before, after) == name.startswith("encoder."), name


def test_a_decoder_of_its_own_is_installed_as_the_autoencoder(decoder, tmp_path):
    _, exported = decoder
    shutil.copytree(SCENES_FOLDER, tmp_path / "scenes")
    install(exported, tmp_path / "scenes")
    file = "model.safetensors"
    assert (tmp_path / "scenes/bsq_vae" / file).read_bytes() == (
        exported / "bsq_decoder" / file
    ).read_bytes()
    assert not (tmp_path / "scenes/bsq_decoder").exists()


def test_unrounded_a_decoder_of_its_own_stands_for_the_autoencoder(decoder, tmp_path):
    training, exported = decoder
    states = tmp_path / "states"
    training.save()
    shutil.copytree(training.folder, states)
    # the whole autoencoder's training, which is not what is installed
    shutil.copy(training.checkpoint, states / "bsq_vae.training.safetensors")
    installed = tmp_path / "installed"
    shutil.copytree(exported / "bsq_decoder", installed / "bsq_vae")
    assert write_unrounded(installed, states, tmp_path / "fp32") == ["bsq_decoder"]
    found = load_vae(tmp_path / "fp32/bsq_vae").state_dict()
    for name, value in training.average.items():
        assert torch.equal(found[name.removeprefix("vae.")], value), name


def test_a_decoder_for_other_bits_is_not_installed(decoder, tmp_path):
    _, exported = decoder
    shutil.copytree(exported, tmp_path / "export")
    shutil.rmtree(tmp_path / "export/bsq_vae")
    shutil.copytree(SCENES_FOLDER / "bsq_vae", tmp_path / "export/bsq_vae")
    with pytest.raises(ModelSetError, match="another encoder"):
        install(tmp_path / "export", tmp_path / "scenes")


def test_figures_are_those_of_held_out_scenes(trained, monkeypatch):
    trainings, _ = trained
    with torch.no_grad():
        figures = {
            name: trainings[name].recipe.evaluate(trainings[name].averaged())
            for name in ("t5", "bsq_vae")
        }
        assert {"text_to_image", "prefers_shape"} <= figures["t5"].keys()
        assert {"psnr", "psnr_1", "least_used_bit"} <= figures["bsq_vae"].keys()
        # a judge that sees nothing will do: what counts here is that pictures are made and read
        monkeypatch.setattr("farm.zoo.recipes.infinity.load_judge", lambda _: Judge().eval())
        infinity = trainings["infinity"].recipe.evaluate(trainings["infinity"].averaged())
    assert {"accuracy_1", "accuracy_8", "shape_1", "background_2"} <= infinity.keys()
    assert 0.3 < infinity["accuracy_8"] < 0.9


def test_what_is_measured_of_them(trained, monkeypatch):
    exported = trained[1]
    monkeypatch.setattr("farm.zoo.measures.next_scale.load_judge", lambda _: Judge().eval())
    bench = Bench(exported, cases=6, seed=3)
    vae = measure_bsq_vae(bench)["all"]
    assert vae["psnr"] == vae["psnr_8"]
    assert vae["psnr"]["cases"] == 6
    found = measure_infinity(bench)
    assert 0.3 < found["bits"]["all"]["accuracy_8"]["mean"] < 0.9
    assert {"shape", "colour"} <= found["one"]["all"].keys()
    for kind in ("noun", "attribute", "background"):
        for figure in ("pointing", "midpoint_iou"):
            assert 0 <= found["attention"]["all"][f"{kind}_{figure}"]["mean"] <= 1
    assert text_to_image_grid(bench, "infinity").shape[0] == 3


def test_every_word_of_the_captions_is_one_token():
    tokenizer = scenes_text_tokenizer()
    scenes = sample_scenes(60, generator_for("train", 5), split="train", two_share=0.5)
    words = random.Random(0)
    for index in range(60):
        for text in (caption(scenes, index), varied_caption(scenes, index, words)[0]):
            assert tokenizer.encode(text).length == len(text.split()) + 1, text


def test_every_word_that_names_something_is_a_set_of_its_own():
    texts = ["a photo of a large red circle and a striped blue heart in the sky", "a green ring"]
    weights, tags = word_sets(scenes_text_tokenizer(), texts, [[1, 0], [0]], 17)
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    assert (weights.sum(-1) == (tags >= 0)).all(), "one row in each set that is there"
    said = texts[0].split()
    named = {said[int(row.argmax())]: tag for row, tag in zip(weights[0], tags[0], strict=True)}
    assert named == {
        "circle": 1,
        "red": 1,
        "large": 1,
        "heart": 0,
        "blue": 0,
        "striped": 0,
        "sky": BACKGROUND_TAG,
    }
    assert tags[1].tolist() == [0, 0, -1, -1, -1, -1, -1]


def test_texts_look_as_they_will_while_edits_are_made(trained):
    recipe = trained[0]["infinity"].recipe
    texts = ["a red circle", f"a blue ring{INSTRUCTION}", "a green heart"]
    dropped = torch.tensor([False, False, True])
    lengths = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        text, present = recipe._rows(texts, dropped, generator)
        said = [recipe.tokenizer.encode(t).length for t in texts]
        assert present[:2].sum(1).tolist() == [said[0], said[1] + 20]
        learned = text[1, said[1] : said[1] + 20]
        assert (learned == 0).all(), "what is learned begins with zeros"
        assert (text[1, : said[1]].abs().sum(-1) > 0).all()
        lengths.add(int(present[2].sum()))
    assert max(lengths) > 50, "every row of no text is trained"
