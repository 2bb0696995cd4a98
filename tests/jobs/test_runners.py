"""How many backbones a job's farm may have."""

from contextlib import contextmanager

import pytest

from farm.errors import InvalidRequestError
from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from jobs import runners
from jobs.runners import choose_runner


@pytest.fixture
def opened(monkeypatch):
    """What farms were opened with, on a cluster's Ray of eight GPUs."""
    found = []

    @contextmanager
    def joined():
        yield False

    @contextmanager
    def farm(model_set, *, replicas, max_replicas, beside):
        found.append((replicas, max_replicas))
        yield object()

    monkeypatch.setattr(runners, "local_ray", joined)
    monkeypatch.setattr(runners, "open_model_set_farm", farm)
    monkeypatch.setattr(runners, "gpu_count", lambda: 8)
    return found


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (1, 8)),
        ({"max_backbones": 20}, (1, 20)),
        ({"max_backbones": 1}, (1, 1)),
        ({"backbones": 2}, (2, 8)),
        ({"backbones": 12}, (12, 12)),
        ({"backbones": 4, "max_backbones": 2}, (4, 4)),
    ],
)
def test_a_farm_grows_to_the_gpus_there_are_or_to_what_is_asked(opened, tmp_path, asked, expected):
    store = open_store(str(tmp_path))
    with choose_runner(open_model_set("scenes"), store, "default", inline=False, **asked)():
        pass
    assert opened == [expected]


def test_without_gpus_there_is_one(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "gpu_count", lambda: 0)
    store = open_store(str(tmp_path))
    with choose_runner(open_model_set("scenes"), store, "default", inline=False)():
        pass
    assert opened == [(1, 1)]


@pytest.fixture
def machine(opened, monkeypatch):
    """A Ray of one's own, which stays as small as it is."""
    found = {"CPU": 2.0}

    @contextmanager
    def own():
        yield True

    monkeypatch.setattr(runners, "local_ray", own)
    monkeypatch.setattr(runners, "gpu_count", lambda: int(found.get("GPU", 0)))
    monkeypatch.setattr("actors.local.gpu_count", lambda: int(found.get("GPU", 0)))
    monkeypatch.setattr("ray.cluster_resources", lambda: found)
    return found


@pytest.mark.parametrize("asked", [{"backbones": 2}, {"max_backbones": 2}])
def test_backbones_that_would_leave_edits_no_room_are_refused(machine, opened, tmp_path, asked):
    runner = choose_runner(
        open_model_set("scenes"), open_store(str(tmp_path)), "default", inline=False, **asked
    )
    with (
        pytest.raises(InvalidRequestError, match=r"2 CPUs and 0 GPUs.*ask for 1 at most"),
        runner(),
    ):
        pass
    assert opened == []


def test_a_machine_with_few_cpus_has_no_more_backbones_than_leave_edits_room(
    machine, opened, tmp_path
):
    machine |= {"CPU": 4.0, "GPU": 8.0}
    store = open_store(str(tmp_path))
    with choose_runner(open_model_set("scenes"), store, "default", inline=False)():
        pass
    assert opened == [(1, 3)]
