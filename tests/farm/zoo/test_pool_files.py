"""Encoded pictures: made once, by one of several processes, which says how far it is."""

import fcntl
from pathlib import Path

import pytest
import torch

from farm.zoo.recipes.pool_files import Encoding, cached_tensors, encoding


def test_the_second_who_asks_reads_what_the_first_made(tmp_path: Path) -> None:
    made = []

    def make(tell):
        tell(0, 1)
        made.append(1)
        return {"x": torch.arange(3.0)}

    for _ in range(2):
        tensors = cached_tensors(tmp_path / "cache" / "latents-a.safetensors", make)
        assert torch.equal(tensors["x"], torch.arange(3.0))
    assert made == [1]


def test_others_see_how_far_it_is_while_it_is_made(tmp_path: Path) -> None:
    seen = [encoding(tmp_path)]

    def make(tell):
        tell(256, 20_000)
        seen.append(encoding(tmp_path))
        tell(512, 20_000)
        seen.append(encoding(tmp_path))
        return {"x": torch.zeros(1)}

    cached_tensors(tmp_path / "holes-0f.safetensors", make)
    seen.append(encoding(tmp_path))
    assert seen == [None, Encoding("holes", 256, 20_000), Encoding("holes", 512, 20_000), None]


def test_nobody_encodes_where_the_one_who_did_was_killed(tmp_path: Path) -> None:
    (tmp_path / "holes-0f.progress").write_text("256 20000")
    assert encoding(tmp_path) is None  # not even a lock is there
    with (tmp_path / "holes-0f.lock").open("w") as lock:
        assert encoding(tmp_path) is None
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert encoding(tmp_path) == Encoding("holes", 256, 20_000)
        (tmp_path / "holes-0f.progress").write_text("")  # at the moment of being written
        assert encoding(tmp_path) is None


def test_what_fails_leaves_nothing_that_looks_made(tmp_path: Path) -> None:
    def make(tell):
        tell(1, 2)
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        cached_tensors(tmp_path / "latents-a.safetensors", make)
    assert encoding(tmp_path) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latents-a.lock"]
