import pytest
import torch
from accelerate.hooks import AlignDevicesHook
from hypothesis import given
from hypothesis import strategies as st
from torch.cuda._utils import _get_device_index

from cluster.fractions import share_accelerators
from farm.backbones.room import (
    BATCH_ROOM,
    SMALLEST_ROOM,
    batch_room,
    bytes_left,
    carried,
    parts_to_offload,
    recomputes,
    source_cache_bytes,
)
from farm.errors import ModelSetError
from tests.tiny import TOKENS, tiny_autoencoder, tiny_text_encoder

GB = 1_000_000_000
CONTEXT = 700 << 20  # of CUDA, in each process
SIZES = {"unet": 2 * GB, "t5": 3 * GB, "vae": 1 * GB, "infinity": 4 * GB}


@pytest.mark.parametrize(
    ("room", "away"),
    [(None, set()), (12 * GB, set()), (10 * GB, {"t5"}), (8 * GB, {"t5"}), (7 * GB, {"t5", "vae"})],
)
def test_what_is_missed_least_stays_in_main_memory_first(room, away):
    assert parts_to_offload(SIZES, room, reserve=GB) == away


def test_a_card_that_is_too_small_either_way_is_an_early_error():
    with pytest.raises(ModelSetError, match=r"need 7\.0 GB.*t5, vae left.*and 5\.0 GB are free"):
        parts_to_offload(SIZES, 5 * GB, reserve=GB)


@pytest.mark.parametrize(
    ("left", "room"),
    [
        (None, 1 << 30),
        (5 << 30, 0),
        (18 << 30, 5 << 30),
        (30 << 30, 11 << 30),
        (70 << 30, 16 << 30),
    ],
)
def test_sources_have_half_of_what_batches_leave(left, room):
    assert source_cache_bytes(left) == room


def fraction_of(share):
    """As CUDA's, which takes no device without a number, but None."""

    def told(device=None):
        if device is not None:
            _get_device_index(device)
        return share

    return told


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@pytest.mark.parametrize(("share", "left"), [(1.0, 10 + 2), (0.5, 12 - 5)])
def test_what_is_left_is_the_share_of_this_process(monkeypatch, share, left, device):
    """A card of 24 with 10 free; 7 are reserved here, 5 of them used."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10, 24))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 7)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 5)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", fraction_of(share))
    assert bytes_left(device) == left


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_share_of_a_card_leaves_less_for_batches(monkeypatch, device):
    assert batch_room("cpu") == BATCH_ROOM
    for share, room in ((1.0, 8 << 30), (0.5, 4 << 30), (0.1, 2 << 30)):
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", fraction_of(share))
        assert batch_room(device) == room


def test_without_room_for_large_batches_a_set_loads_for_small_ones():
    """sd15 on a card of 12 GiB: what fits there is computed there."""
    sizes = {"unet": 4 * GB, "safety_checker": GB, "text_encoder": GB // 2, "vae": GB // 3}
    away = {"text_encoder", "vae"}
    assert parts_to_offload(sizes, int(12.5 * GB)) == away
    assert parts_to_offload(sizes, 15 * GB) == set()
    assert parts_to_offload(sizes, int(7.2 * GB)) == away
    with pytest.raises(ModelSetError, match="take a smaller model set"):
        parts_to_offload(sizes, 7 * GB)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]), st.integers(3 << 30, 30 << 30), min_size=1, max_size=3
    ),
    st.integers(8 << 30, 80 << 30),
)
def test_whoever_is_given_a_place_can_load_there(weights, memory):
    """With what CUDA takes of the card in its process, which no share counts."""
    for placed in share_accelerators(weights, [memory]).placed:
        own = placed.share * memory - CONTEXT
        reserve = max(SMALLEST_ROOM, int(BATCH_ROOM * placed.share))
        parts_to_offload({"unet": weights[placed.name]}, int(own), reserve=reserve)


def test_a_cpu_has_no_limit():
    assert bytes_left("cpu") is None
    assert not recomputes(depth=40, width=3584, tokens=10521, room=None)


def test_blocks_are_computed_twice_where_their_activations_do_not_fit():
    """2B at 1024² keeps 40 GB (spec): once on a card of 80, twice on one of 24."""
    two_b = {"depth": 32, "width": 2048, "tokens": 10521}
    assert not recomputes(**two_b, room=60 * GB)
    assert recomputes(**two_b, room=20 * GB)
    assert not recomputes(**(two_b | {"tokens": 521}), room=20 * GB)


def test_what_visits_the_device_computes_the_same():
    """Execution on the CPU, too: the same hooks, which give the weights back after each layer."""
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(TOKENS)[None]
    with torch.no_grad():
        expected = tiny_autoencoder().encode(image), tiny_text_encoder()(ids)
        vae, text = carried(tiny_autoencoder(), "cpu"), carried(tiny_text_encoder(), "cpu")
        assert all(p.is_meta for p in vae.parameters())
        assert isinstance(getattr(vae.vae.quant_conv, "_hf_hook", None), AlignDevicesHook)
        assert torch.equal(vae.encode(image), expected[0])
        assert torch.equal(text(ids), expected[1])
    assert all(p.is_meta for p in vae.parameters()), "given back"
