"""`editfarm zoo`: what is measured and drawn, as a user asks for it."""

import json

import torch
from typer.testing import CliRunner

from farm.images import decode_image
from farm.zoo.weights import SCENES_FOLDER
from jobs.zoo import app


def run(*arguments):
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    torch.set_num_threads(threads)
    return result


def test_eval_measures_against_the_lines_and_says_where_from(tmp_path):
    file = tmp_path / "eval.json"
    result = run("eval", "vae", "--cases", 16, "--seed", 3, "--json", file)
    assert result.exit_code == 0, result.output
    record = json.loads(file.read_text())
    (line,) = record["lines"]
    psnr = record["figures"]["vae"]["all"]["psnr"]
    assert (line["figure"], line["line"]) == ("vae/all/psnr", ">= 30")
    assert line["mean"] == psnr["mean"]
    assert line["met"] == (psnr["mean"] >= 30)
    assert psnr["cases"] == 16
    assert psnr["low"] < psnr["mean"] < psnr["high"]
    assert set(record["provenance"]["weights"]) >= {"vae/diffusion_pytorch_model.safetensors"}
    assert "vae/all/psnr" in result.stdout
    again = tmp_path / "again.json"
    run("eval", "vae", "--cases", 16, "--seed", 3, "--json", again)
    assert json.loads(again.read_text())["lines"] == record["lines"]


def test_eval_of_what_is_not_there_is_refused(tmp_path):
    result = run("eval", "unet", "--networks", tmp_path)
    assert result.exit_code == 2
    assert "needs unet" in result.stderr


def test_curves_are_plotted(tmp_path):
    points = [{"step": 50 * n, "loss": 1 / n, "v_mse": 0.5 / n} for n in range(1, 5)]
    points[-1]["heldout/shape_1"] = 0.9
    file = tmp_path / "unet.curve.jsonl"
    file.write_text("".join(f"{json.dumps(p)}\n" for p in points))
    result = run("curves", file, "--out", tmp_path / "curves.png")
    assert result.exit_code == 0, result.output
    image = decode_image((tmp_path / "curves.png").read_bytes()).image
    assert image.shape == (3, 440, 840)  # three plots in two columns
    empty = image[:, 220:, 420:]
    assert empty.min() == 1
    blue = (image[2] > 0.5) & (image[0] < 0.3)
    assert blue[:220, :420].any()
    assert not blue[220:, :420].any()  # held-out figures are drawn in another colour


def test_samples_of_a_network_that_is_not_there_are_refused(tmp_path):
    result = run("samples", "inpainting", "--networks", tmp_path)
    assert result.exit_code == 2
    assert "no inpainting in" in result.stderr


def test_attention_is_drawn_over_the_first_scenes(tmp_path):
    file = tmp_path / "attention.png"
    result = run("attention", "--out", file, "--seed", 4, "--networks", SCENES_FOLDER)
    assert result.exit_code == 0, result.output
    image = decode_image(file.read_bytes()).image
    assert image.shape == (3, 8 * 130, 16 * 130)
    # each scene's first tile is the picture itself, the next is no brighter anywhere
    picture, lit = image[:, :128, :128], image[:, :128, 130:258]
    assert (lit <= picture + 2 / 255).all()
    assert lit.mean() < picture.mean()
