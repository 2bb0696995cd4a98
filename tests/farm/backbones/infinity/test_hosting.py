"""Infinity's operations behind the host that has everything."""

import numpy as np
import pytest

from farm.backbones.host import OperationHost
from farm.backbones.infinity.hosting import INFINITY_INPUTS, INFINITY_OPERATIONS
from farm.calls import Call
from farm.errors import InvalidRequestError
from tests.tiny import tiny_networks
from tests.tiny_infinity import tiny_networks as tiny_infinity_networks
from tests.tiny_infinity import tiny_whole_networks

SCHEDULE = {"schedule": "own"}


@pytest.fixture(scope="module")
def host():
    return OperationHost(tiny_whole_networks())


def test_every_operation_has_its_row():
    assert INFINITY_INPUTS.keys() == INFINITY_OPERATIONS.keys()


def test_a_host_has_them_where_there_is_an_infinity(host):
    described = host.describe()
    assert set(INFINITY_OPERATIONS) <= set(described["operations"])
    assert {"infinity", "bsq_vae", "t5", "unet"} <= described["parameters"].keys()
    without = OperationHost(tiny_networks())
    assert not set(INFINITY_OPERATIONS) & set(without.describe()["operations"])


def test_an_answer_is_that_of_the_networks_alone(host):
    call = Call("t5.embed_tokens", {"ids": np.array([5, 1])})
    (answer,) = host.run_all([call])
    expected = tiny_infinity_networks().text.encoder
    assert answer.arrays["rows"].shape == (2, expected.config.d_model)
    assert answer.work == {"t5_forward": 1}


@pytest.mark.parametrize(
    ("op", "change", "says"),
    [
        ("t5.embed_tokens", {"ids": np.array([999])}, "ids holds 999, expected 0 to"),
        ("bsq.decode", {"bits": np.zeros(11, dtype=np.int64)}, "bits holds .*expected uint8"),
        ("bsq.encode", {}, "'image' is missing"),
        ("bsq.encode", {"image": np.zeros((3, 8, 8), np.float32)}, r"\(8, 8\) pixels, expected"),
    ],
)
def test_what_an_operation_cannot_take_is_said(host, op, change, says):
    with pytest.raises(InvalidRequestError, match=says):
        host.run_all([Call(op, change, SCHEDULE)])


def test_a_bad_call_fails_alone(host):
    good = Call("t5.embed_tokens", {"ids": np.array([5, 1])})
    bad = Call("t5.embed_tokens", {"ids": np.array([5, 999])})
    first, second = host.run_batch([good, bad])
    assert not isinstance(first, InvalidRequestError)
    assert isinstance(second, InvalidRequestError)
