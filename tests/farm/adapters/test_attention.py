from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from farm.adapters.attention import (
    AttentionControl,
    ControlledAttention,
    KeepStates,
    TargetEdits,
    attention_maps,
    controlled_self,
    edited_cross,
    edited_maps,
    install_attention,
    target_edits,
)
from farm.adapters.attention_layers import AttentionLayer
from tests.tiny import TOKENS, WIDTH, tiny_unet

SAME = {"rtol": 1e-5, "atol": 1e-5}
"""Rounding of another order of summation in single precision."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def random_edits(
    items: int,
    tokens: int,
    *,
    self_pixels: int = 16,
    free: tuple[Any, ...] = (),
    prompted: tuple[Any, ...] = (),
) -> TargetEdits:
    return target_edits(
        mapper=uniform(items, tokens, tokens, seed=1),
        refine_alpha=uniform(items, tokens, seed=2),
        equalizer=2 * uniform(items, tokens, seed=3),
        cross_alpha=uniform(items, tokens, seed=4),
        self_active=torch.tensor([[True, False], [False, True], [True, True]])[:items],
        self_pixels=self_pixels,
        free=free or (None,) * items,
        prompted=prompted or (None,) * items,
    )


LAYER = AttentionLayer("here", is_cross=True, place="down", size=4)


def states_of(query: Tensor, key: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], ...]:
    """Rows as sources of items, at one layer."""
    return tuple({LAYER.name: pair} for pair in zip(query, key, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cross_attention_dim": 12},
        {"cross_attention_dim": 12, "cross_attention_norm": "layer_norm"},
        {"norm_num_groups": 4, "residual_connection": True},
        {"qk_norm": "layer_norm", "rescale_output_factor": 2.0, "bias": True},
    ],
)
def test_without_control_it_is_diffusers_own(options: dict[str, Any]) -> None:
    attention = Attention(query_dim=16, heads=2, dim_head=8, **options).eval()
    with torch.no_grad():
        for seed, parameter in enumerate(attention.parameters()):
            parameter.copy_(0.5 * normal(*parameter.shape, seed=seed))
    states, context = normal(3, 9, 16), normal(3, 5, 12, seed=1)
    inputs = (states, context) if "cross_attention_dim" in options else (states,)
    expected = AttnProcessor2_0()(attention, *inputs)
    found = ControlledAttention(LAYER)(attention, *inputs)
    torch.testing.assert_close(found, expected, **SAME)


def controlled_unet() -> UNet2DConditionModel:
    unet = tiny_unet().eval().requires_grad_(False)
    install_attention(unet, 8)
    return unet


def predict(
    unet: UNet2DConditionModel, embeds: Tensor, control: AttentionControl | None = None
) -> Tensor:
    rows = len(embeds)
    kwargs = None if control is None else {"control": control}
    latents, timesteps = normal(rows, 4, 8, 8), torch.arange(rows) * 100 + 1
    with torch.no_grad():
        return unet(latents, timesteps, embeds, cross_attention_kwargs=kwargs).sample


def test_installed_and_without_control_the_unet_is_as_it_was() -> None:
    embeds = normal(3, TOKENS, WIDTH)
    stock = tiny_unet().eval()
    stock.set_attn_processor(AttnProcessor2_0())
    torch.testing.assert_close(predict(controlled_unet(), embeds), predict(stock, embeds), **SAME)


def test_an_empty_control_changes_nothing() -> None:
    unet, embeds = controlled_unet(), normal(2, TOKENS, WIDTH)
    assert torch.equal(predict(unet, embeds), predict(unet, embeds, AttentionControl()))


def capture_maps(unet: UNet2DConditionModel, pixels: int) -> tuple[list[str], list[Tensor]]:
    """Names and maps of cross layers, from the outputs of their projections as they run."""
    names: list[str] = []
    maps: list[Tensor] = []
    queries: dict[str, Tensor] = {}

    def split(states: Tensor, heads: int) -> Tensor:
        return states.unflatten(-1, (heads, -1)).transpose(1, 2)

    def watch(name: str, attention: Attention) -> None:
        def keep_query(_: Any, __: Any, output: Tensor) -> None:
            queries[name] = split(output, attention.heads)

        def keep_map(_: Any, __: Any, output: Tensor) -> None:
            query, key = queries[name], split(output, attention.heads)
            if query.shape[2] == pixels:
                names.append(name)
                scale = query.shape[-1] ** -0.5
                maps.append(torch.softmax(query @ key.mT * scale, dim=-1))

        attention.to_q.register_forward_hook(keep_query)
        assert attention.to_k is not None
        attention.to_k.register_forward_hook(keep_map)

    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            assert isinstance(module, Attention)
            watch(name, module)
    return names, maps


def test_maps_of_down_and_up_blocks_are_recorded_in_order_of_execution() -> None:
    unet, embeds = controlled_unet(), normal(2, TOKENS, WIDTH)
    names, seen = capture_maps(unet, pixels=16)
    control = AttentionControl(record_pixels=16)
    recorded = predict(unet, embeds, control)
    kept = [m for name, m in zip(names, seen, strict=True) if not name.startswith("mid")]
    places = [name.split(".")[0] for name in names]
    assert places == ["down_blocks", "mid_block", "up_blocks", "up_blocks"]
    assert len(control.maps) == len(kept) == 3
    for found, expected in zip(control.maps, kept, strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(recorded, predict(unet, embeds), **SAME)


def test_values_have_an_input_of_their_own_in_every_cross_layer() -> None:
    """As if a hook put the value input before each `attn2.to_v` of the stock network."""
    embeds, values = normal(2, TOKENS, WIDTH), normal(2, TOKENS, WIDTH, seed=1)
    stock = tiny_unet().eval()
    stock.set_attn_processor(AttnProcessor2_0())
    for name, module in stock.named_modules():
        if name.endswith("attn2.to_v"):
            module.register_forward_pre_hook(lambda _, __: (values,))
    found = predict(controlled_unet(), embeds, AttentionControl(value_embeds=values))
    torch.testing.assert_close(found, predict(stock, embeds), **SAME)
    assert (found - predict(controlled_unet(), embeds)).abs().max() > 0.01


def test_edited_maps_follow_the_formula() -> None:
    items, heads, pixels, tokens = 2, 2, 4, 5
    source = uniform(items, heads, pixels, tokens).softmax(-1)
    target = uniform(items, heads, pixels, tokens, seed=9).softmax(-1)
    mapper, r = uniform(items, tokens, tokens, seed=1), uniform(items, tokens, seed=2)
    eq, a = 2 * uniform(items, tokens, seed=3), uniform(items, tokens, seed=4)
    found = edited_maps(source, target, random_edits(items, tokens))
    for p, h, q, n in torch.cartesian_prod(*map(torch.arange, source.shape)).tolist():
        moved = sum(source[p, h, q, m] * mapper[p, m, n] for m in range(tokens))
        own = target[p, h, q, n]
        edited = eq[p, n] * (r[p, n] * moved + (1 - r[p, n]) * own)
        expected = a[p, n] * edited + (1 - a[p, n]) * own
        torch.testing.assert_close(found[p, h, q, n], expected)


def split_rows(rows: int, keys: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        normal(rows, 2, 9, 6, seed=seed),
        normal(rows, 2, keys, 6, seed=seed + 1),
        normal(rows, 2, keys, 6, seed=seed + 2),
    )


def test_edited_attention_is_the_same_with_and_without_maps() -> None:
    query, key, value = split_rows(6, 5, seed=0)
    source_query, source_key, _ = split_rows(3, 5, seed=10)
    edits = random_edits(3, 5, prompted=states_of(source_query, source_key))
    kept, maps = edited_cross(query, key, value, edits, LAYER.name, keep_maps=True)
    free, none = edited_cross(query, key, value, edits, LAYER.name, keep_maps=False)
    assert none is None
    assert maps is not None
    torch.testing.assert_close(free, kept, **SAME)
    own = attention_maps(query, key)
    source = attention_maps(source_query, source_key)
    torch.testing.assert_close(maps, edited_maps(source, own[1::2], edits))
    torch.testing.assert_close(kept[1::2], maps @ value[1::2], **SAME)
    torch.testing.assert_close(kept[::2], (own @ value)[::2], **SAME)  # without the prompt


def test_a_target_without_a_source_keeps_its_own_attention() -> None:
    """Alone or beside one that has a source; whoever stands in for it has no weight."""
    query, key, value = split_rows(4, 5, seed=0)
    source_query, source_key, _ = split_rows(1, 5, seed=10)
    edits = target_edits(
        mapper=uniform(2, 5, 5),
        refine_alpha=torch.ones(2, 5),
        equalizer=2 * torch.ones(2, 5),
        cross_alpha=torch.tensor([[1.0] * 5, [0.0] * 5]),
        self_active=torch.zeros(2, 2, dtype=torch.bool),
        self_pixels=16,
        free=(None, None),
        prompted=(*states_of(source_query, source_key), None),
    )
    expected = attention_maps(query, key) @ value
    for keep_maps in (True, False):
        found, _ = edited_cross(query, key, value, edits, LAYER.name, keep_maps=keep_maps)
        torch.testing.assert_close(found[2:], expected[2:], **SAME)
        assert (found[1] - expected[1]).abs().max() > 0.01


def test_self_attention_of_active_targets_is_the_sources() -> None:
    query, key, value = (normal(6, 2, 16, 6, seed=s) for s in range(3))
    sources = [(normal(3, 2, 16, 6, seed=s), normal(3, 2, 16, 6, seed=s + 1)) for s in (10, 20)]
    free, prompted = (states_of(*pair) for pair in sources)
    edits = random_edits(3, 5, free=free, prompted=prompted)
    found = controlled_self(query, key, value, edits, LAYER.name).unflatten(0, (3, 2))
    own = attention_maps(query, key).unflatten(0, (3, 2))
    values = value.unflatten(0, (3, 2))
    for item, branch in torch.cartesian_prod(torch.arange(3), torch.arange(2)).tolist():
        source_query, source_key = sources[branch]
        theirs = attention_maps(source_query[item], source_key[item])
        maps = theirs if edits.self_active[item, branch] else own[item, branch]
        torch.testing.assert_close(found[item, branch], maps @ values[item, branch])


def test_large_self_attention_is_never_replaced() -> None:
    query, key, value = (normal(6, 2, 16, 6, seed=s) for s in range(3))
    states = states_of(query[:3], key[:3])
    small = random_edits(3, 5, self_pixels=15, free=states, prompted=states)
    assert torch.equal(
        controlled_self(query, key, value, small, LAYER.name),
        controlled_self(query, key, value, None, LAYER.name),
    )


def test_closed_windows_leave_every_row_alone() -> None:
    unet, embeds = controlled_unet(), normal(4, TOKENS, WIDTH)
    edits = target_edits(
        mapper=uniform(2, TOKENS, TOKENS),
        refine_alpha=uniform(2, TOKENS),
        equalizer=uniform(2, TOKENS),
        cross_alpha=torch.zeros(2, TOKENS),
        self_active=torch.zeros(2, 2, dtype=torch.bool),
        self_pixels=1024,
        free=(None, None),
        prompted=(None, None),
    )
    found = predict(unet, embeds, AttentionControl(edits=edits))
    torch.testing.assert_close(found, predict(unet, embeds), **SAME)


def kept_states(
    unet: UNet2DConditionModel, embeds: Tensor, keep: KeepStates
) -> dict[str, tuple[Tensor, Tensor]]:
    control = AttentionControl(keep=keep)
    predict(unet, embeds, control)
    return control.states


def test_queries_and_keys_are_kept_as_asked() -> None:
    unet, embeds = controlled_unet(), normal(2, TOKENS, WIDTH)
    every = kept_states(unet, embeds, KeepStates(64, cross=True))
    assert set(every) == set(unet.attn_processors)
    small = kept_states(unet, embeds, KeepStates(16, cross=False))
    assert {query.shape[2] for query, _ in small.values()} == {16}
    assert set(small) == {n for n in every if ".attn1." in n and every[n][0].shape[2] == 16}
    for name, (query, key) in small.items():
        assert torch.equal(query, every[name][0])
        assert torch.equal(key, every[name][1])


def test_a_target_that_takes_its_own_attention_is_itself() -> None:
    """Its source is the same row: whatever is taken of it, nothing changes."""
    unet, embeds = controlled_unet(), normal(2, TOKENS, WIDTH)
    states = kept_states(unet, embeds, KeepStates(64, cross=True))
    rows = [{n: (q[row], k[row]) for n, (q, k) in states.items()} for row in range(2)]
    edits = target_edits(
        mapper=torch.eye(TOKENS)[None],
        refine_alpha=torch.ones(1, TOKENS),
        equalizer=torch.ones(1, TOKENS),
        cross_alpha=torch.ones(1, TOKENS),
        self_active=torch.ones(1, 2, dtype=torch.bool),
        self_pixels=64,
        free=[rows[0]],
        prompted=[rows[1]],
    )
    expected = predict(unet, embeds)
    for pixels in (None, 16):
        control = AttentionControl(record_pixels=pixels, edits=edits)
        torch.testing.assert_close(predict(unet, embeds, control), expected, **SAME)
        assert len(control.maps) == (0 if pixels is None else 3)


def test_threads_share_one_unet() -> None:
    """What a call asks travels with it: calls at the same time do not see each other's."""
    unet, embeds = controlled_unet(), normal(4, TOKENS, WIDTH)
    makes: list[Callable[[], AttentionControl]] = [
        AttentionControl,
        lambda: AttentionControl(value_embeds=normal(4, TOKENS, WIDTH, seed=5), record_pixels=16),
        lambda: AttentionControl(edits=random_edits(2, TOKENS)),
        lambda: AttentionControl(keep=KeepStates(16, cross=True)),
    ]

    def work(make: Callable[[], AttentionControl]) -> tuple[Tensor, list[Tensor]]:
        control = make()
        return predict(unet, embeds, control), control.maps

    expected = [work(make) for make in makes]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, makes * 4))
    for (noise, maps), (again, maps_again) in zip(expected * 4, found, strict=True):
        assert torch.equal(noise, again)
        assert all(map(torch.equal, maps, maps_again))
        assert len(maps) == len(maps_again)
