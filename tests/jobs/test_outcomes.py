import pytest

from farm.errors import BackboneLostError, InvalidManifestError, UnknownWordError
from farm.requests import parse_request
from jobs.outcomes import Totals, failed_edit
from tests.jobs.outcome_examples import done_edit

REQUEST = parse_request({"image": "a.png", "source_prompt": "a b", "target_prompt": "a c"})


def totals_of(*outcomes):
    totals = Totals()
    for outcome in outcomes:
        totals.add(outcome)
    return totals


def broken(line=1):
    return failed_edit(line, f"line-{line}", InvalidManifestError("not JSON"), request=None)


def failed(error, line=1):
    return failed_edit(line, f"line-{line}", error, request=REQUEST)


def test_a_failure_says_whether_trying_again_may_help():
    assert failed(BackboneLostError("gone")).retryable
    assert not failed(UnknownWordError("no such word")).retryable
    assert failed(UnknownWordError("x")).kind == "UnknownWordError"


@pytest.mark.parametrize(
    ("outcomes", "exit_code"),
    [
        ([done_edit(), done_edit(line=2)], 0),
        ([done_edit(), failed(BackboneLostError("gone"), 2)], 1),
        ([done_edit(), broken(2)], 1),
        ([failed(UnknownWordError("no such word"))], 1),
        ([broken(1), broken(2)], 2),
        ([], 2),
    ],
)
def test_exit_code_of_a_job(outcomes, exit_code):
    assert totals_of(*outcomes).exit_code == exit_code


def test_an_edit_that_was_in_the_store_costs_nothing():
    totals = totals_of(
        done_edit(line=1, work={"unet_forward": 10, "vae_decode": 1}),
        done_edit(line=2, work={"unet_forward": 5}, stage_reused=True, trainer_pid=12),
        done_edit(line=3, work={"unet_forward": 100}, reused=True, stage_reused=True),
    )
    assert (totals.done, totals.reused, totals.inversions_reused) == (3, 1, 1)
    assert totals.work == {"unet_forward": 15, "vae_decode": 1}
    assert totals.accelerator_seconds == pytest.approx(5.0)
    assert totals.as_dict()["trainer_pids"] == [11, 12]
    assert totals.as_dict()["backbone_pids"] == [22]
