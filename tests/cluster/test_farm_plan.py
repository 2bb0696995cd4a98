"""The paper plan: its page, its simulation against closed forms, and what it says breaks first."""

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.farm_plan import (
    DAY,
    KNOWN_IMAGE,
    NEW_IMAGE,
    Load,
    gain,
    limits,
    plan,
    simulate,
    text,
)
from farm.storage.checkpoints import load_checkpoint
from farm.storage.commits import commit, read_commit, read_file
from farm.storage.leases import Lease
from farm.storage.local import LocalStore
from farm.storage.stages import wait_or_compute

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SMALL = Load(accelerators=100, edits=int(5 * DAY), seconds=11.6, in_flight=1, shards=1, notices=0)


def test_the_runbook_prints_what_the_script_prints():
    assert text(Load()) in PAGE.read_text(encoding="utf-8")


class Counting(LocalStore):
    """Counts requests, as S3 would charge them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.counts: Counter[str] = Counter()

    def get(self, key: str) -> bytes:
        self.counts["gets"] += 1
        return super().get(key)

    def get_with_version(self, key: str) -> tuple[bytes, str]:
        before = self.counts["gets"]
        found = super().get_with_version(key)
        self.counts["gets"] = before + 1  # one request, whatever a local store does for it
        return found

    def list(self, prefix: str) -> Iterator[str]:
        self.counts["gets"] += 1
        return super().list(prefix)

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        self.counts["puts"] += 1
        return super().put_if_absent(key, data)

    def put_if_match(self, key: str, data: bytes, version: str) -> str | None:
        self.counts["puts"] += 1
        return super().put_if_match(key, data, version)


def one_edit(store: Counting, edit: str) -> dict[str, int]:
    """The requests of `farm.runner` for one edit, in its order."""
    store.counts.clear()
    stage, target = "tenants/t/stages/s", f"tenants/t/edits/{edit}"
    assert read_commit(store, target) is None  # the job's look, before it starts a trainer
    assert read_commit(store, target) is None  # the trainer's own
    store.put_if_absent("tenants/t/inputs/x", b"picture")

    def make(lease: Lease) -> dict[str, bytes]:
        assert load_checkpoint(store, stage) is None
        return {"inversion.safetensors": b"weights"}

    wait_or_compute(store, stage, uuid.uuid4().hex, make, ttl=20.0, poll=0.5)
    record = read_commit(store, stage)
    assert record is not None
    for name in record.files:
        read_file(store, stage, record, name)
    commit(store, target, uuid.uuid4().hex, dict.fromkeys(EDIT_FILES, b"x"), {})
    return dict(store.counts)


EDIT_FILES = ("attention.png", "edited.png", "mask.png", "metrics.json", "reconstruction.png")


def test_the_plan_counts_the_stores_requests_right(tmp_path):
    store = Counting(tmp_path)
    assert one_edit(store, "first") == NEW_IMAGE
    assert one_edit(store, "second") == KNOWN_IMAGE


def test_what_arrives_is_done():
    done = simulate(SMALL).edits_per_second
    # 9 000 edits arrive at random: their number is right within 1.1 % two times of three
    assert done == pytest.approx(SMALL.rate, rel=0.04)


def test_one_edit_at_a_time_keeps_machines_busy_as_queueing_theory_says():
    busy = simulate(SMALL, step=0.1, hours=0.3).busy
    # rate × seconds / machines; each edit idles half a step at its end
    assert busy == pytest.approx(SMALL.rate * (SMALL.mean_seconds + 0.05) / 100, rel=0.05)


def test_too_much_work_is_done_at_the_rate_of_full_batches():
    load = replace(SMALL, accelerators=10, in_flight=4, edits=int(20 * DAY))
    most = 10 * gain(4) / load.mean_seconds
    found = simulate(load, hours=0.2)
    assert found.busy > 0.99
    # the step's end costs an edit of some 19 s half a step
    assert found.edits_per_second == pytest.approx(most, rel=0.06)


def test_machines_that_go_cost_at_most_a_checkpoints_age():
    calm = simulate(replace(SMALL, notices=0.0), hours=0.1)
    rough = simulate(replace(SMALL, notices=2000.0), hours=0.1)
    assert calm.lost_share == 0
    # each notice loses at most ten seconds of one edit; 2 000 a day are one in 43 s
    assert 0 < rough.lost_share < 10 / 43.2


def test_more_shards_cure_the_boards_and_not_the_store():
    rows = {row.what: row for row in limits(Load(shards=1))}
    more = {row.what: row for row in limits(Load(shards=20))}
    assert rows["progress boards"].share > 1 > more["progress boards"].share
    name = "puts to one prefix of the store"
    assert rows[name].used == more[name].used


def test_known_images_are_cheaper():
    assert plan(Load(known=1.0)).accelerators_busy == pytest.approx(
        plan(Load(known=0.0)).accelerators_busy * Load().editing
    )
