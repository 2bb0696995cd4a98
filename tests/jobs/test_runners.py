"""How many backbones a job's farm may have."""

from contextlib import contextmanager

import pytest

from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from jobs import runners
from jobs.runners import choose_runner


@pytest.fixture
def opened(monkeypatch):
    """What farms were opened with, on a Ray of eight GPUs."""
    found = []

    @contextmanager
    def nothing():
        yield None

    @contextmanager
    def farm(model_set, *, replicas, max_replicas, beside):
        found.append((replicas, max_replicas))
        yield object()

    monkeypatch.setattr(runners, "local_ray", nothing)
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
