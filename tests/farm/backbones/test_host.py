import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from farm.backbones.host import OperationHost
from farm.backbones.map_cache import MapCache
from farm.backbones.networks import Networks
from farm.calls import Answer, Batch, Call, Executor, Meter, Static, Tensors
from farm.diffusion import DiffusionClient, NoiseQuery
from farm.errors import EditDivergedError, InvalidRequestError, OutOfMemoryError
from tests.tiny import TOKENS, WIDTH, tiny_networks


@pytest.fixture(scope="module")
def networks() -> Networks:
    return tiny_networks()


def noise_call(value: float, **static: bool) -> Call:
    return Call(
        "unet.noise",
        {
            "latents": np.full((4, 8, 8), value, dtype=np.float32),
            "timestep": np.asarray(500),
            "embeds": np.ones((TOKENS, WIDTH), dtype=np.float32),
        },
        static,
    )


class Counting:
    """An operation that doubles, and remembers how many items each batch had."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, networks: Networks, tensors: Tensors, static: Static) -> Batch:
        del networks, static
        self.batches.append(len(tensors["x"]))
        return Batch({"y": 2 * tensors["x"]}, {"doubled": 1})


def double_call(value: float, **static: bool) -> Call:
    return Call("test.double", {"x": np.asarray(value, dtype=np.float32)}, static)


def test_it_is_an_executor(networks: Networks) -> None:
    assert isinstance(OperationHost(networks), Executor)


def test_a_batch_is_one_run_and_answers_keep_their_order(networks: Networks) -> None:
    double = Counting()
    answers = OperationHost(networks, {"test.double": double}).run_batch(
        [double_call(v) for v in (3, 1, 2)]
    )
    assert double.batches == [3]
    assert [float(a.arrays["y"]) for a in answers if isinstance(a, Answer)] == [6, 2, 4]
    assert all(isinstance(a, Answer) and a.work == {"doubled": 1} for a in answers)


def test_inline_and_alone_give_every_call_its_own_batch(networks: Networks) -> None:
    double = Counting()
    host = OperationHost(networks, {"test.double": double})
    meter = Meter(host)
    meter.run_all([double_call(v) for v in (1, 2, 3)])
    host.run_batch([double_call(v, alone=True) for v in (1, 2)])
    assert double.batches == [1] * 5
    assert (meter.calls, meter.work) == (3, {"doubled": 3})


def test_alone_is_bit_equal_whatever_else_runs(networks: Networks) -> None:
    host = OperationHost(networks)
    calls = [noise_call(v, alone=True) for v in (0.1, 0.2, 0.3)]
    together = host.run_batch(calls)
    for call, answer in zip(calls, together, strict=True):
        assert isinstance(answer, Answer)
        (single,) = host.run_all([call])
        assert np.array_equal(answer.arrays["noise"], single.arrays["noise"])


def test_an_item_that_is_not_finite_fails_alone(networks: Networks) -> None:
    host = OperationHost(networks)
    good, bad, other = host.run_batch([noise_call(v) for v in (0.1, float("nan"), 0.3)])
    assert isinstance(bad, EditDivergedError)
    assert "unet.noise" in bad.message
    for outcome, value in ((good, 0.1), (other, 0.3)):
        assert isinstance(outcome, Answer)
        (single,) = host.run_all([noise_call(value)])
        np.testing.assert_allclose(
            outcome.arrays["noise"], single.arrays["noise"], rtol=1e-5, atol=1e-5
        )
    with pytest.raises(EditDivergedError):
        host.run_all([noise_call(float("inf"))])


class Hoard:
    """Needs more memory than there is while caches hold something, or each time."""

    def __init__(self, networks: Networks, error: Exception, *, each_time: bool) -> None:
        self.networks, self.error, self.each_time = networks, error, each_time
        self.tries = 0

    def __call__(self, networks: Networks, tensors: Tensors, static: Static) -> Batch:
        del networks, static
        self.tries += 1
        if self.each_time or len(self.networks.maps):
            raise self.error
        return Batch({"y": tensors["x"]}, {})


def full(networks: Networks, keeps: int) -> Networks:
    maps = MapCache(1 << 20)
    for number in range(keeps):
        maps.put(bytes([number]), (torch.zeros(4),))
    return replace(networks, maps=maps)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no more"),
        torch.OutOfMemoryError("CUDA out of memory.\nmore"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_inline_memory_that_ran_out_has_its_caches_dropped_before_an_edit_fails(
    networks: Networks, error: Exception
) -> None:
    held = full(networks, 2)
    once = Hoard(held, error, each_time=False)
    (answer,) = OperationHost(held, {"test.double": once}).run_all([double_call(3)])
    assert float(answer.arrays["y"]) == 3
    assert (once.tries, len(held.maps)) == (2, 0)
    for keeps, tries in ((0, 1), (2, 2)):
        held = full(networks, keeps)
        always = Hoard(held, error, each_time=True)
        with pytest.raises(OutOfMemoryError, match="does not fit into the memory of cpu"):
            OperationHost(held, {"test.double": always}).run_all([double_call(3)])
        assert always.tries == tries


def test_other_errors_are_not_taken_for_short_memory(networks: Networks) -> None:
    held = full(networks, 2)
    broken = Hoard(held, torch.AcceleratorError("CUDA error: illegal access"), each_time=True)
    with pytest.raises(torch.AcceleratorError):
        OperationHost(held, {"test.double": broken}).run_all([double_call(3)])
    assert (broken.tries, len(held.maps)) == (1, 2)


def test_an_unknown_operation_is_named(networks: Networks) -> None:
    with pytest.raises(InvalidRequestError, match=r"'unet\.dream'.*unet\.noise"):
        OperationHost(networks).run_all([Call("unet.dream", {})])


def test_seconds_are_shared(networks: Networks) -> None:
    """The shares are equal, and together no more than the time that passed."""
    start = time.perf_counter()
    answers = OperationHost(networks).run_batch([noise_call(v) for v in (0.1, 0.2, 0.3)])
    passed = time.perf_counter() - start
    shares = [a.seconds for a in answers if isinstance(a, Answer)]
    assert len(set(shares)) == 1
    assert 0 < sum(shares) <= passed


def test_doubles_are_computed_in_single_precision(networks: Networks) -> None:
    call = noise_call(0.1)
    doubles = {
        n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in call.arrays.items()
    }
    host = OperationHost(networks)
    (found,), (expected,) = host.run_all([Call(call.op, doubles)]), host.run_all([call])
    assert np.array_equal(found.arrays["noise"], expected.arrays["noise"])


def test_description(networks: Networks) -> None:
    host = OperationHost(networks)
    client = DiffusionClient(host, networks.spec)
    client.noise(NoiseQuery(torch.zeros(4, 8, 8), 1, torch.zeros(TOKENS, WIDTH)), keep_maps=True)
    found = host.describe()
    assert found["pid"] == os.getpid()
    assert found["parameters"]["unet"] == networks.unet.unet.num_parameters()
    assert found["parameters"].keys() == {"unet", "vae", "text", "image"}
    assert found["map_cache"]["entries"] == 1
    assert found["map_cache"]["bytes"] == networks.maps.bytes > 0
    assert "unet.edit_noise" in found["operations"]
