"""Malformed arrays: each is refused in words, before any network, and harms no neighbour."""

from collections.abc import Callable

import numpy as np
import pytest

from farm.backbones.host import OperationHost
from farm.backbones.inputs import INPUTS, Takes, sizes_of
from farm.backbones.networks import Networks
from farm.backbones.operations import OPERATIONS
from farm.calls import Answer, Arrays, Call
from farm.errors import InvalidRequestError
from tests.tiny import TOKENS, WIDTH, tiny_networks

EVERY_ARRAY = [(op, name) for op, inputs in INPUTS.items() for name in inputs]
NEEDED = [(op, name) for op, name in EVERY_ARRAY if not INPUTS[op][name].optional]
DTYPES = {"number": np.float32, "integer": np.int64, "switch": np.bool_}


@pytest.fixture(scope="module")
def networks() -> Networks:
    return tiny_networks()


@pytest.fixture(scope="module")
def host(networks: Networks) -> OperationHost:
    return OperationHost(networks)


@pytest.fixture(scope="module")
def example(networks: Networks) -> Callable[[str], Call]:
    """A call that is as stated: zeros, but ones where zero would divide by zero."""
    sizes = sizes_of(networks) | {"any": 16}

    def array(name: str, takes: Takes) -> np.ndarray:
        shape = [int(a) if a.isdecimal() else sizes[a] for a in takes.axes.split()]
        full = np.ones if name.startswith("alpha") else np.zeros
        return full(shape, dtype=DTYPES[takes.kind])

    return lambda op: Call(op, {name: array(name, takes) for name, takes in INPUTS[op].items()})


def refused(host: OperationHost, call: Call, changes: Arrays) -> str:
    (outcome,) = host.run_batch([Call(call.op, {**call.arrays, **changes})])
    assert isinstance(outcome, InvalidRequestError)
    assert call.op in outcome.message
    return outcome.message


def test_every_operation_says_what_it_takes() -> None:
    assert INPUTS.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("op", INPUTS)
def test_what_is_stated_is_what_the_operation_computes_with(
    host: OperationHost, example: Callable[[str], Call], op: str
) -> None:
    call = example(op)
    (answer,) = host.run_batch([call])
    assert isinstance(answer, Answer)
    optional = {name for name, takes in INPUTS[op].items() if takes.optional}
    without = {name: array for name, array in call.arrays.items() if name not in optional}
    (answer,) = host.run_batch([Call(op, without)])
    assert isinstance(answer, Answer)


@pytest.mark.parametrize(("op", "name"), NEEDED)
def test_a_missing_array_is_named_with_what_was_found(
    host: OperationHost, example: Callable[[str], Call], op: str, name: str
) -> None:
    arrays = {n: array for n, array in example(op).arrays.items() if n != name}
    with pytest.raises(InvalidRequestError, match=f"{op}: the array '{name}' is missing; found"):
        host.run_all([Call(op, arrays)])


@pytest.mark.parametrize(("op", "name"), EVERY_ARRAY)
def test_a_wrong_shape_says_both_shapes(
    host: OperationHost, example: Callable[[str], Call], op: str, name: str
) -> None:
    call = example(op)
    right = call.arrays[name]
    batched = refused(host, call, {name: right[None]})  # the classic: somebody added a batch axis
    assert f"{name} has shape ({', '.join(map(str, (1, *right.shape)))}), expected (" in batched
    assert "no batch axis" in batched
    if right.ndim and "any" not in INPUTS[op][name].axes:
        assert "expected" in refused(host, call, {name: right[..., :-1]})
    if right.ndim:
        assert "expected" in refused(host, call, {name: right[..., :0]})


@pytest.mark.parametrize(("op", "name"), EVERY_ARRAY)
@pytest.mark.parametrize("dtype", [np.complex64, np.uint8, ">f4", "O", "U1"])
def test_a_wrong_dtype_says_both_dtypes(
    host: OperationHost, example: Callable[[str], Call], op: str, name: str, dtype: str
) -> None:
    call = example(op)
    message = refused(host, call, {name: call.arrays[name].astype(dtype)})
    assert f"{name} holds {np.dtype(dtype).str}" in message
    assert f"expected {np.dtype(DTYPES[INPUTS[op][name].kind]).name}" in message


def test_an_unknown_array_is_no_silent_typo(
    host: OperationHost, example: Callable[[str], Call]
) -> None:
    message = refused(host, example("unet.noise"), {"value_embed": np.zeros((TOKENS, WIDTH))})
    assert "the array 'value_embed' is unknown" in message
    assert "value_embeds" in message


@pytest.mark.parametrize(
    ("op", "name", "value", "says"),
    [
        ("clip.embed_tokens", "ids", 10_000, "ids holds 10000, expected 0 to 28"),
        ("clip.embed_tokens", "ids", -1, "ids holds -1, expected 0 to 28"),
        ("unet.noise", "timestep", 1000, "timestep holds 1000, expected 0 to 999"),
        ("unet.value_loss", "map_timestep", -3, "map_timestep holds -3"),
    ],
)
def test_a_number_out_of_range_fails_alone_in_its_batch(
    host: OperationHost,
    example: Callable[[str], Call],
    op: str,
    name: str,
    value: int,
    says: str,
) -> None:
    good = example(op)
    bad = Call(op, {**good.arrays, name: np.full_like(good.arrays[name], value)})
    for alone in ({}, {"alone": True}):
        calls = [Call(op, call.arrays, alone) for call in (good, bad, good)]
        first, refusal, last = host.run_batch(calls)
        assert isinstance(refusal, InvalidRequestError)
        assert says in refusal.message
        assert isinstance(first, Answer)
        assert isinstance(last, Answer)


def test_sizes_are_those_of_the_loaded_networks(networks: Networks) -> None:
    embedding = networks.text.tower.get_input_embeddings()
    assert sizes_of(networks)["vocabulary"] == embedding.num_embeddings
