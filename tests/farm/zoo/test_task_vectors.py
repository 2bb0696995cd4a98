"""A share of a training's change, added to a relative (arXiv:2212.04089)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from farm.errors import ModelSetError
from farm.zoo.recipes.task_vectors import with_change, write_with_change
from jobs.zoo import app


def weights(seed: int, channels: int = 4, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv_in.weight": (8, channels, 3, 3), "norm.bias": (8,)}
    return {
        name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()
    }


def test_the_whole_change_of_the_network_itself_is_its_training() -> None:
    before, after = weights(0), weights(1)
    changed = with_change(before, before, after, 1.0)
    for name, tensor in changed.items():
        torch.testing.assert_close(tensor, after[name])


def test_nothing_of_a_change_leaves_every_bit() -> None:
    base = weights(2, dtype=torch.float16)
    changed = with_change(base, weights(0), weights(1), 0.0)
    assert all(torch.equal(changed[name], tensor) for name, tensor in base.items())
    assert {tensor.dtype for tensor in changed.values()} == {torch.float16}


def test_more_input_channels_have_it_in_the_first() -> None:
    base, before, after = weights(2, channels=9), weights(0), weights(1)
    changed = with_change(base, before, after, 0.25)["conv_in.weight"]
    change = (after["conv_in.weight"] - before["conv_in.weight"]) / 4
    torch.testing.assert_close(changed[:, :4], base["conv_in.weight"][:, :4] + change)
    assert torch.equal(changed[:, 4:], base["conv_in.weight"][:, 4:])


def test_half_precision_is_added_to_in_single() -> None:
    """Half of the last digit that fp16 has at 2 is the last digit that it has at 1."""
    base = {"w": torch.tensor([1.0], dtype=torch.float16)}
    before = {"w": torch.tensor([2.0], dtype=torch.float16)}
    after = {"w": torch.tensor([2.0 + 2**-9], dtype=torch.float16)}
    assert with_change(base, before, after, 0.5)["w"].item() == 1.0 + 2**-10


@pytest.mark.parametrize(
    ("before", "share", "said"),
    [
        ({"conv_in.weight": torch.zeros(8, 4, 3, 3)}, 0.3, "norm.bias"),
        (weights(0) | {"norm.bias": torch.zeros(7)}, 0.3, "norm.bias is .8."),
        (weights(0, channels=5), 0.3, "one architecture"),
        (weights(0), float("nan"), "finite"),
    ],
)
def test_what_is_no_relative_is_said(
    before: dict[str, torch.Tensor], share: float, said: str
) -> None:
    with pytest.raises(ModelSetError, match=said):
        with_change(weights(2), before, weights(1), share)


def test_a_change_beyond_half_precision_is_an_error() -> None:
    base = {"w": torch.tensor([60000.0], dtype=torch.float16)}
    with pytest.raises(ModelSetError, match="range"):
        with_change(base, {"w": torch.zeros(1)}, {"w": torch.full((1,), 60000.0)}, 1.0)


def folder(path: Path, **tensors: torch.Tensor) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text("{}")
    return path


def test_the_command_writes_a_network_beside_the_old_one(tmp_path: Path) -> None:
    base = folder(tmp_path / "inpainting", w=torch.tensor([1.0, 2.0]))
    before = folder(tmp_path / "before", w=torch.tensor([0.0, 0.0]))
    after = folder(tmp_path / "after", w=torch.tensor([10.0, 20.0]))
    output = tmp_path / "merged"
    arguments = ["merge", str(base), "--before", str(before), "--after", str(after)]
    arguments += ["--share", "0.3", "--output", str(output)]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    assert load_file(output / "model.safetensors")["w"].tolist() == [4.0, 8.0]
    assert (output / "config.json").read_text() == "{}"
    assert load_file(base / "model.safetensors")["w"].tolist() == [1.0, 2.0]


def test_what_is_there_is_not_overwritten_and_a_folder_without_weights_is_said(
    tmp_path: Path,
) -> None:
    base = folder(tmp_path / "a", w=torch.zeros(1))
    with pytest.raises(ModelSetError, match="is there"):
        write_with_change(base, base, base, 0.3, base)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelSetError, match="0 safetensors files"):
        write_with_change(base, tmp_path / "empty", base, 0.3, tmp_path / "out")
