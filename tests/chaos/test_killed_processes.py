"""A batch of real edits while backbone and trainers are killed again and again: the same pictures.

Longer than `tests/actors/test_scene_edits.py`, which kills once at a place of its choice: here
processes die wherever the edits happen to be, in the middle of calls, and several times.

Deterministic edits are long ones, and equal to the bit. Those that share batches are short: there
the rounding of another batch is to be told from a loss, and a long optimisation amplifies rounding
beyond 40 dB with nobody killed.
"""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from actors.board import Message
from actors.edits import run_edits
from actors.farm_session import FarmSession
from farm.errors import FarmError
from farm.images import decode_image
from farm.metrics.psnr import psnr
from farm.runner import PreparedEdit
from farm.storage.commits import read_commit
from farm.storage.layout import edit_prefix
from farm.storage.local import LocalStore
from farm.zoo.model_sets import ModelSet
from tests.actors.scene_edits import QUICK, pictures_of, prepared_edits

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

TENANT = "default"
IN_FLIGHT = 4
EQUAL_DB = 40.0
"""definitions.md: whole edits that shared batches, against undisturbed ones."""


@dataclass(frozen=True)
class Load:
    """Some images, two targets each, and the steps of all edits together between two kills."""

    images: int
    parameters: Mapping[str, int]
    between: int
    deterministic: bool


LOADS = {
    # 173 steps an image, some ten seconds of a core
    "deterministic": Load(2, {"num_steps": 12, "inner_steps": 16}, 60, deterministic=True),
    # 20 steps an image
    "batched": Load(8, QUICK, 25, deterministic=False),
}

Victims = Callable[[Mapping[str, Message]], list[int]]
Report = Callable[[Mapping[str, Message]], None]


def run_all(
    farm: FarmSession, edits: list[PreparedEdit], folder: Path, report: Report | None = None
) -> tuple[LocalStore, dict[str, dict[str, bytes]]]:
    """All edits into a store of their own; the pictures of each."""
    store = LocalStore(folder)
    named = [(edit.request.id or "", edit) for edit in edits]
    pictures: dict[str, dict[str, bytes]] = {}
    for name, outcome in run_edits(
        farm, named, store, tenant=TENANT, in_flight=IN_FLIGHT, report=report
    ):
        assert not isinstance(outcome, FarmError), (name, outcome)
        pictures[name] = pictures_of(store, outcome)
    return store, pictures


@dataclass
class Killer:
    """Kills some processes each time that the edits are so many steps further."""

    victims: Victims
    every: int
    times: int
    seen: dict[str, int] = field(default_factory=dict)
    killed: list[int] = field(default_factory=list)

    def __call__(self, messages: Mapping[str, Message]) -> None:
        for name, message in messages.items():
            self.seen[name] = max(self.seen.get(name, 0), message["step"])
        due = len(self.killed) < self.times
        if due and sum(self.seen.values()) >= self.every * (len(self.killed) + 1):
            for pid in self.victims(messages):
                self.killed.append(pid)
                with suppress(ProcessLookupError):  # what the board says is a moment old
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module", params=LOADS)
def load(request: pytest.FixtureRequest) -> Load:
    return LOADS[request.param]


@pytest.fixture(scope="module")
def edits(load: Load, models: ModelSet) -> list[PreparedEdit]:
    return prepared_edits(
        models,
        ("red", "blue"),
        images=load.images,
        parameters=load.parameters,
        deterministic=load.deterministic,
    )


@pytest.fixture(scope="module")
def undisturbed(
    farm: FarmSession, edits: list[PreparedEdit], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, bytes]]:
    _, pictures = run_all(farm, edits, tmp_path_factory.mktemp("undisturbed"))
    assert len(pictures) == len(edits)
    return pictures


def expect_equal(
    found: dict[str, dict[str, bytes]],
    expected: dict[str, dict[str, bytes]],
    *,
    deterministic: bool,
) -> None:
    assert found.keys() == expected.keys()
    if deterministic:
        assert found == expected
        return
    for name, pictures in expected.items():
        one, other = (decode_image(p["edited.png"]).image[None] for p in (pictures, found[name]))
        near = torch.inf if torch.equal(one, other) else psnr(one, other).item()
        assert near >= EQUAL_DB, (name, near)


def expect_committed_once(store: LocalStore, edits: list[PreparedEdit]) -> None:
    for edit in edits:
        target = edit_prefix(TENANT, edit.edit_id)
        record = read_commit(store, target)
        assert record is not None
        assert {f"{target}/attempts/{record.attempt}/{name}" for name in record.files} <= set(
            store.list(f"{target}/attempts/")
        )


def test_a_backbone_killed_again_and_again_changes_no_picture(
    farm: FarmSession,
    load: Load,
    edits: list[PreparedEdit],
    undisturbed: dict[str, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    killer = Killer(lambda _: farm.backbone_pids(), every=load.between, times=3)
    store, pictures = run_all(farm, edits, tmp_path / "store", killer)
    assert len(set(killer.killed)) == 3
    expect_equal(pictures, undisturbed, deterministic=load.deterministic)
    expect_committed_once(store, edits)


def test_trainers_killed_in_mid_inversion_change_no_picture(
    farm: FarmSession,
    load: Load,
    edits: list[PreparedEdit],
    undisturbed: dict[str, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    def one_inverting(messages: Mapping[str, Message]) -> list[int]:
        inverting = [m["pid"] for m in messages.values() if m["stage"].endswith("inversion")]
        return [pid for pid in inverting if pid not in killer.killed][:1]

    killer = Killer(one_inverting, every=load.between, times=2)
    store, pictures = run_all(farm, edits, tmp_path / "store", killer)
    assert len(killer.killed) == 2
    expect_equal(pictures, undisturbed, deterministic=load.deterministic)
    expect_committed_once(store, edits)
