"""Figures that one method alone has, and paired differences between arms."""

import json
import math

import pytest

from farm.errors import InvalidRequestError
from farm.zoo.evaluation import EditScore, as_json, compare, summarise


def score(number: int, kind: str = "colour", **fields) -> EditScore:
    return EditScore(
        id=str(number),
        type=kind,
        held_out=False,
        small=False,
        objects=1,
        source_prompt="a",
        target_prompt="b",
        **fields,
    )


def test_a_method_s_own_figures_lie_beside_everyone_s():
    scores = [score(1, success=1.0, more={"oracle_iou": 0.5}), score(2, more={"oracle_iou": 0.7})]
    summary = summarise(scores, seed=0)
    assert summary["oracle_iou"] == pytest.approx(0.6)
    assert len(summary["intervals"]["oracle_iou"]) == 2
    assert summary["by_type"]["colour"]["oracle_iou"] == pytest.approx(0.6)
    entry = json.loads(json.dumps(as_json(scores[0]), allow_nan=False))
    assert entry["oracle_iou"] == 0.5
    assert "more" not in entry
    assert entry["region_iou"] is None


def test_differences_are_paired_so_what_edits_have_in_common_drops_out():
    """Edits differ by 10 dB, the arms by 1 dB on each: the interval is a point."""
    first = [score(n, inside_psnr=10.0 * n + 1, seconds=1.0) for n in range(6)]
    second = [score(n, inside_psnr=10.0 * n, seconds=9.0) for n in range(6)]
    found = compare(first, second, seed=0)
    assert found["inside_psnr"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "edits": 6}
    assert "seconds_per_edit" not in found  # wall time says nothing of an arm
    back = compare(second, first, seed=0)
    assert back["inside_psnr"]["mean"] == -1.0


def test_a_failed_edit_counts_as_no_success_and_has_no_other_figure():
    first = [score(1, success=1.0, inside_psnr=20.0), score(2, success=1.0, inside_psnr=20.0)]
    second = [score(1, success=1.0, inside_psnr=18.0), score(2, error="lost")]
    found = compare(first, second, seed=0)
    assert found["success"]["mean"] == 0.5
    assert found["success"]["edits"] == 2
    assert found["inside_psnr"]["mean"] == 2.0
    assert found["inside_psnr"]["edits"] == 1


def test_figures_that_one_arm_lacks_are_not_compared():
    first = [score(1, region_iou=0.5, more={"oracle_iou": 0.6})]
    found = compare(first, [score(1, region_iou=math.nan)], seed=0)
    assert "region_iou" not in found
    assert "oracle_iou" not in found


def test_differences_are_there_by_type():
    first = [score(1, success=1.0), score(2, "shape", success=0.0)]
    second = [score(1, success=0.0), score(2, "shape", success=0.0)]
    found = compare(first, second, seed=0)
    assert found["success"]["mean"] == 0.5
    assert found["by_type"]["colour"]["success"]["mean"] == 1.0
    assert found["by_type"]["shape"]["success"]["mean"] == 0.0


def test_scores_of_other_edits_are_refused():
    with pytest.raises(InvalidRequestError, match="same edits"):
        compare([score(1)], [score(2)], seed=0)
