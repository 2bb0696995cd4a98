"""Training curves: what is written, and what a resumed training does with them."""

import pytest

from farm.errors import InvalidRequestError
from farm.zoo.recipes.curves import Curve, read_curve


def test_a_line_holds_means_since_the_last_one_and_evaluations_as_they_are(tmp_path):
    path = tmp_path / "part.curve.jsonl"
    curve = Curve(path, step=0, every=2)
    for step, loss in enumerate((4.0, 2.0, 10.0, 6.0, 1.0), start=1):
        curve.add(step, {"loss": loss}, {"psnr": 30.0} if step == 5 else None)
    assert read_curve(path) == [
        {"step": 2, "loss": 3.0},
        {"step": 4, "loss": 8.0},
        {"step": 5, "loss": 1.0, "heldout/psnr": 30.0},
    ]


def test_a_resumed_training_drops_what_came_after_its_checkpoint(tmp_path):
    path = tmp_path / "part.curve.jsonl"
    first = Curve(path, step=0, every=1)
    for step in range(1, 6):
        first.add(step, {"loss": 1.0}, None)
    second = Curve(path, step=3, every=1)
    second.add(4, {"loss": 2.0}, None)
    assert [p["step"] for p in read_curve(path)] == [1, 2, 3, 4]
    assert read_curve(path)[-1]["loss"] == 2.0


def test_a_curve_that_is_none_is_said(tmp_path):
    with pytest.raises(InvalidRequestError, match="no curve"):
        read_curve(tmp_path / "nothing.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n")
    with pytest.raises(InvalidRequestError, match="no JSON"):
        read_curve(broken)
