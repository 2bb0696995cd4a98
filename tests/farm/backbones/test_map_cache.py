from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from farm.backbones.map_cache import MapCache, Maps, StateCache, maps_digest

ENTRY_BYTES = 2 * (2 * 4 * 3) * 4


def entry(value: float) -> Maps:
    """Two layers of (2, 4, 3) in single precision."""
    return (torch.full((2, 4, 3), float(value)), -torch.full((2, 4, 3), float(value)))


def test_equal_inputs_have_equal_names_and_any_change_another() -> None:
    latents, embeds = torch.zeros(4, 2, 2), torch.zeros(3, 5)
    moved, said = latents.clone(), embeds.clone()
    moved[3, 1, 1] = 1e-30
    said[2, 4] = -0.0  # other bytes, even if equal: a miss costs a pass, a wrong hit the result
    name = maps_digest(latents, 7, embeds)
    assert name == maps_digest(latents.clone(), 7, embeds.clone())
    others = [(moved, 7, embeds), (latents, 8, embeds), (latents, 7, said)]
    values = maps_digest(latents, 7, embeds, embeds)
    alone = maps_digest(latents, 7, embeds, label="alone")
    assert len({name, values, alone, *(maps_digest(*other) for other in others)}) == 6


def test_the_least_recently_used_go_first() -> None:
    cache = MapCache(2 * ENTRY_BYTES)
    cache.put(b"a", entry(1))
    cache.put(b"b", entry(2))
    assert cache.get(b"a") is not None
    cache.put(b"c", entry(3))
    assert cache.get(b"b") is None
    found = cache.get(b"a")
    assert found is not None
    assert all(map(torch.equal, found, entry(1)))
    assert cache.get(b"c") is not None
    assert (len(cache), cache.bytes, cache.hits, cache.misses) == (2, 2 * ENTRY_BYTES, 3, 1)


def test_putting_again_replaces() -> None:
    cache = MapCache(2 * ENTRY_BYTES)
    for value in (1, 2, 3):
        cache.put(b"a", entry(value))
    found = cache.get(b"a")
    assert found is not None
    assert torch.equal(found[0], entry(3)[0])
    assert cache.bytes == ENTRY_BYTES


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = MapCache(ENTRY_BYTES - 1)
    cache.put(b"a", entry(1))
    assert cache.get(b"a") is None
    assert cache.bytes == 0


def test_threads_may_share_it() -> None:
    cache = MapCache(3 * ENTRY_BYTES)

    def use(number: int) -> Tensor | None:
        cache.put(bytes([number % 7]), entry(number % 7))
        found = cache.get(bytes([number % 7]))
        return None if found is None else found[0] - number % 7

    with ThreadPoolExecutor(8) as pool:
        found = [f for f in pool.map(use, range(400)) if f is not None]
    assert all(not f.any() for f in found)
    assert (len(cache), cache.bytes) == (3, 3 * ENTRY_BYTES)
    assert cache.hits + cache.misses == 400


def test_states_are_measured_by_their_queries_and_keys() -> None:
    cache = StateCache(1000)
    layer = (torch.zeros(2, 4, 3), torch.zeros(2, 5, 3))
    cache.put(b"a", {"one": layer, "two": layer})
    assert cache.describe() == {
        "entries": 1,
        "bytes": 2 * (2 * 4 * 3 + 2 * 5 * 3) * 4,
        "hits": 0,
        "misses": 0,
    }
    cache.put(b"b", {"one": layer, "two": layer, "three": layer})
    assert cache.get(b"a") is None  # 648 bytes and 432 have no room beside each other
