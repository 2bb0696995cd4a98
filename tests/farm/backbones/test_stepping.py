"""Operations of several steps: items meet and part between them, and none is changed by it."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.backbones.rows import Held, joined_rows, parted
from farm.calls import Answer, Batch, Call, Midway, Paused, Static, Stepped, Tensors
from farm.errors import EditDivergedError, InvalidRequestError
from farm.regions import InpaintQuery, RegionsClient
from farm.samplers.ddim import Move
from tests.farm.backbones.test_region_operations import Recorder, sample
from tests.tiny_regions import tiny_region_networks

STEPS = 4
BATCHED = 1e-5
"""definitions.md: a single operation, relative, in single precision; four of them add up."""


class Doubling(Stepped):
    """Doubles `x` `times` times; phases tell even steps from odd ones."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def begin(self, networks: Networks, tensors: Tensors, static: Static) -> Midway:
        return self._midway({**tensors, "done": torch.zeros_like(tensors["times"])}, {"begun": 1})

    def step(self, networks: Networks, tensors: Tensors, static: Static, phase: str) -> Midway:
        self.batches.append(tensors["x"].tolist())
        assert {int(n) % 2 for n in tensors["done"]} == {phase == "odd"}
        state = {**tensors, "x": 2 * tensors["x"], "done": tensors["done"] + 1}
        return self._midway(state, {"doubled": 1})

    def end(self, networks: Networks, tensors: Tensors, static: Static) -> Batch:
        return Batch({"y": tensors["x"]}, {"ended": 1})

    def _midway(self, state: dict[str, Tensor], work: dict[str, int]) -> Midway:
        left = (state["times"] - state["done"]).tolist()
        names = ["odd" if n % 2 else "even" for n in state["done"].tolist()]
        return Midway(
            state, [n if more else None for n, more in zip(names, left, strict=True)], work
        )


def double_call(x: float, times: int, **static: bool) -> Call:
    arrays = {"x": np.asarray(x, dtype=np.float32), "times": np.asarray(times)}
    return Call("test.double", arrays, static)


def value_of(outcome: object) -> float:
    assert isinstance(outcome, Answer), outcome
    return float(outcome.arrays["y"])


@pytest.fixture(scope="module")
def networks() -> Networks:
    return tiny_region_networks()


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


@pytest.fixture
def host(networks: Networks, doubling: Doubling) -> OperationHost:
    return OperationHost(networks, {"test.double": doubling})


def test_a_batch_runs_to_its_end_whoever_ends_first(
    host: OperationHost, doubling: Doubling
) -> None:
    outcomes = host.run_batch([double_call(x, times) for x, times in ((1, 3), (10, 0), (100, 1))])
    assert [value_of(o) for o in outcomes] == [8, 10, 200]
    assert doubling.batches == [[1, 100], [2], [4]]
    works = [o.work for o in outcomes if isinstance(o, Answer)]
    assert works[0] == {"begun": 1, "doubled": 3, "ended": 1}
    assert works[1] == {"begun": 1, "ended": 1}


def test_a_newcomer_joins_at_the_next_step_of_its_phase(
    host: OperationHost, doubling: Doubling
) -> None:
    (first,) = host.run_step([double_call(1, 3)])
    assert isinstance(first, Paused)
    (first,) = host.run_step([first])
    (first,) = host.run_step([first])
    (second,) = host.run_step([double_call(10, 2)])
    assert isinstance(first, Paused)
    assert isinstance(second, Paused)
    assert first.key == second.key  # after two steps and before the first: both even
    ended, second = host.run_step([first, second])
    assert value_of(ended) == 8
    assert isinstance(second, Paused)
    assert second.key != first.key
    (second,) = host.run_step([second])
    assert value_of(second) == 40
    assert doubling.batches == [[1], [2], [4, 10], [20]]


def test_alone_is_alone_at_every_step(host: OperationHost, doubling: Doubling) -> None:
    outcomes = host.run_batch([double_call(x, 2, alone=True) for x in (1, 10)])
    assert [value_of(o) for o in outcomes] == [4, 40]
    assert all(len(batch) == 1 for batch in doubling.batches)


def test_a_result_that_is_not_finite_fails_alone(host: OperationHost) -> None:
    good, bad = host.run_batch([double_call(1, 2), double_call(float("inf"), 2)])
    assert value_of(good) == 4
    assert isinstance(bad, EditDivergedError)


def test_seconds_are_those_of_all_steps(host: OperationHost) -> None:
    (paused,) = host.run_step([double_call(1, 1)])
    assert isinstance(paused, Paused)
    assert paused.seconds > 0
    (answer,) = host.run_step([paused])
    assert isinstance(answer, Answer)
    assert answer.seconds > paused.seconds


def test_as_an_operation_it_runs_to_its_end_at_once(networks: Networks, doubling: Doubling) -> None:
    tensors = {"x": torch.tensor([1.0, 10.0]), "times": torch.tensor([2, 2])}
    batch = doubling(networks, tensors, {})
    assert batch.tensors["y"].tolist() == [4, 40]
    assert batch.work == {"begun": 1, "doubled": 2, "ended": 1}


def test_rows_that_stay_together_are_not_copied() -> None:
    midway = Midway({"x": torch.arange(6.0).view(3, 2)}, ["step"] * 3)
    assert joined_rows(parted(midway))["x"] is midway.tensors["x"]


def test_rows_join_in_the_order_that_was_asked() -> None:
    one = Midway({"x": torch.arange(6.0).view(3, 2)}, ["step"] * 3)
    other = Midway({"x": 10 + torch.arange(4.0).view(2, 2)}, ["step"] * 2)
    held = [Held(one, 2), Held(other, 0), Held(one, 0), Held(one, 1), Held(other, 0)]
    expected = torch.tensor([[4.0, 5], [10, 11], [0, 1], [2, 3], [10, 11]])
    assert torch.equal(joined_rows(held)["x"], expected)


def stepwise(client: RegionsClient, item: int, steps: int) -> Tensor:
    """The same sampling, one call a step."""
    asked = sample(item, steps)
    latents = asked.latents
    for move in asked.moves:
        rest = {n: getattr(asked, n) for n in ("embeds", "uncond_embeds", "guidance_scale")}
        (latents,) = client.inpaint(
            [
                InpaintQuery(
                    latents,
                    move.timestep,
                    move.alpha,
                    move.alpha_to,
                    **rest,
                    mask=asked.mask,
                    left=asked.left,
                )
            ]
        )
    return latents


def test_a_sampling_is_its_steps_to_the_bit(networks: Networks) -> None:
    client = RegionsClient(OperationHost(networks), networks.spec)
    for item in range(3):
        (found,) = client.sample([sample(item, STEPS)])
        assert torch.equal(found, stepwise(client, item, STEPS))


def sample_calls(networks: Networks, *, alone: bool = False) -> list[Call]:
    recorder = Recorder(OperationHost(networks))
    client = RegionsClient(recorder, networks.spec, alone=alone)
    for item in range(3):
        client.sample([sample(item, STEPS)])
    return recorder.calls


def run_staggered(host: OperationHost, calls: Sequence[Call]) -> tuple[list[Answer], list[int]]:
    """Each call begins a step after the one before; the sizes of the batches of steps."""
    going: dict[int, Paused] = {}
    ended: dict[int, Answer] = {}
    sizes: list[int] = []
    for turn in range(len(calls) + STEPS):
        if turn < len(calls):
            (begun,) = host.run_step([calls[turn]])
            assert isinstance(begun, Paused)
            going[turn] = begun
        assert len({paused.key for paused in going.values()}) <= 1  # all steps are of one phase
        if not going:
            break
        sizes.append(len(going))
        results = dict(zip(going, host.run_step(list(going.values())), strict=True))
        ended |= {n: r for n, r in results.items() if isinstance(r, Answer)}
        going = {n: r for n, r in results.items() if isinstance(r, Paused)}
    return [ended[n] for n in range(len(calls))], sizes


def test_samplings_at_different_steps_share_batches_and_change_nothing(networks: Networks) -> None:
    host = OperationHost(networks)
    calls = sample_calls(networks)
    single = host.run_all(calls)
    staggered, sizes = run_staggered(host, calls)
    assert sizes == [1, 2, 3, 3, 2, 1]
    for one, many in zip(single, staggered, strict=True):
        assert one.work == many.work == {"unet_forward": 2 * STEPS}
        expected, found = one.arrays["latents"], many.arrays["latents"]
        assert np.abs(found - expected).max() <= STEPS * BATCHED * np.abs(expected).max()


def test_a_deterministic_sampling_is_equal_to_the_bit_in_any_company(networks: Networks) -> None:
    host = OperationHost(networks)
    calls = sample_calls(networks, alone=True)
    single = host.run_all(calls)
    staggered, _ = run_staggered(host, calls)
    for one, many in zip(single, staggered, strict=True):
        assert np.array_equal(one.arrays["latents"], many.arrays["latents"])


def test_levels_and_timesteps_of_different_number_are_refused(networks: Networks) -> None:
    host = OperationHost(networks)
    call = sample_calls(networks)[0]
    short = Call(call.op, {**call.arrays, "alphas": call.arrays["alphas"][1:]})
    with pytest.raises(InvalidRequestError, match=r"'alphas': 3, .*as many of each"):
        host.run_all([short])
    with pytest.raises(InvalidRequestError, match="timesteps"):
        RegionsClient(host, networks.spec).sample(
            [sample(0).__class__(**{**vars(sample(0)), "moves": [Move(5000, 0.5, 0.6)]})]
        )
