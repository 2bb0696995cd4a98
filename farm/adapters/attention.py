"""Attention of a frozen diffusers UNet under per-call control: value input, recording, editing.

One processor sits on every attention layer from load on and holds no data. What a call wants comes
with the call, as an `AttentionControl` in diffusers' `cross_attention_kwargs`, so different edits
share a batch and concurrent calls share the network.

An edited target looks where its source looks. The source's queries and keys come from a pass of
their own (`KeepStates`), which may lie long before: sources are not part of an edited batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Bool, Float
from torch import Tensor

from farm.adapters.attention_layers import AttentionLayer, attention_layers

Rows = Float[Tensor, "rows heads queries head_dim"]
"""Queries, keys or values split into heads."""
LayerStates: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]
"""Queries and keys by layer; of a batch, or of one row of it (heads, places, head_dim)."""


@dataclass(frozen=True)
class KeepStates:
    """Which queries and keys a pass keeps.

    Attributes:
        self_pixels: of self-attention with at most so many queries.
        cross: of cross-attention, too.
    """

    self_pixels: int
    cross: bool


@dataclass(frozen=True)
class TargetEdits:
    """Editing of targets: two rows each, without the prompt and with it, in this order.

    The prompted row's cross map becomes
    `from_source · (A_source @ mapper) + from_target · A_target`; everything is data of a target.
    """

    mapper: Float[Tensor, "items tokens tokens"]
    from_source: Float[Tensor, "items tokens"]
    from_target: Float[Tensor, "items tokens"]
    self_active: Bool[Tensor, "items 2"]
    """Whether the target takes the source's self-attention: without the prompt, with it."""
    self_pixels: int
    """Self-attention of more queries than this is never replaced."""
    free: Sequence[LayerStates | None]
    """Each item's source without the prompt: needed where its self-attention is taken."""
    prompted: Sequence[LayerStates | None]
    """Each item's source with the prompt: needed where any attention of it is taken."""


def target_edits(
    *,
    mapper: Float[Tensor, "items tokens tokens"],
    refine_alpha: Float[Tensor, "items tokens"],
    equalizer: Float[Tensor, "items tokens"],
    cross_alpha: Float[Tensor, "items tokens"],
    self_active: Bool[Tensor, "items 2"],
    self_pixels: int,
    free: Sequence[LayerStates | None],
    prompted: Sequence[LayerStates | None],
) -> TargetEdits:
    """Prompt-to-prompt's replace, refine and reweight as two weights per token.

    `a · eq · (r · A_s @ mapper + (1 - r) · A_t) + (1 - a) · A_t`, with a = cross_alpha and
    r = refine_alpha (StyleDiffusion spec §7).
    """
    edited = cross_alpha * equalizer
    return TargetEdits(
        mapper=mapper,
        from_source=edited * refine_alpha,
        from_target=edited * (1 - refine_alpha) + (1 - cross_alpha),
        self_active=self_active,
        self_pixels=self_pixels,
        free=free,
        prompted=prompted,
    )


@dataclass(frozen=True)
class AttentionControl:
    """What one call asks of the attention layers.

    Attributes:
        value_embeds: input of the values of cross-attention, instead of the prompt's embeddings.
        record_pixels: record cross maps with so many queries, from down and up blocks.
        keep: keep queries and keys.
        edits: edit targets.
        maps: the recorded maps in order of execution; (rows, heads, pixels, tokens), or with edits
            (items, heads, pixels, tokens), the prompted rows alone, after editing.
        states: the kept queries and keys of all rows.
    """

    value_embeds: Float[Tensor, "rows tokens embed"] | None = None
    record_pixels: int | None = None
    keep: KeepStates | None = None
    edits: TargetEdits | None = None
    maps: list[Tensor] = field(default_factory=list[Tensor])
    states: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def install_attention(unet: UNet2DConditionModel, latent_size: int) -> list[AttentionLayer]:
    """Put the controlled processor on every attention layer of a UNet, for good.

    Returns:
        The layers, with the sizes of their maps for latents of this side.

    Raises:
        ModelSetError: the UNet has attention of an unknown kind.
    """
    layers = attention_layers(unet, latent_size)
    processors = {layer.name: ControlledAttention(layer) for layer in layers}
    unet.set_attn_processor(processors)  # pyright: ignore[reportArgumentType]
    return layers


class ControlledAttention:
    """diffusers' `AttnProcessor2_0` with a per-call `control`; without one it computes the same.

    Args:
        layer: where it sits.
    """

    def __init__(self, layer: AttentionLayer) -> None:
        self._name = layer.name
        self._recordable = layer.place != "mid"

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "rows queries channels"],
        encoder_hidden_states: Float[Tensor, "rows tokens embed"] | None = None,
        attention_mask: Tensor | None = None,
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "rows queries channels"]:
        assert attention_mask is None, "the farm pads prompts with tokens that attention sees"
        states = hidden_states
        if attn.group_norm is not None:
            states = attn.group_norm(states.transpose(1, 2)).transpose(1, 2)
        context = states
        if encoder_hidden_states is not None:
            context = _context(attn, encoder_hidden_states)
        values = context
        is_cross = encoder_hidden_states is not None
        if is_cross and control is not None and control.value_embeds is not None:
            values = _context(attn, control.value_embeds)
        assert attn.to_k is not None, "transformer blocks have keys and values of their own"
        assert attn.to_v is not None
        query, key = _heads(attn, attn.to_q(states)), _heads(attn, attn.to_k(context))
        value = _heads(attn, attn.to_v(values))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        if control is None:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            mixed = self._controlled(query, key, value, control, is_cross=is_cross)
        assert attn.to_out is not None
        output = attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))
        if attn.residual_connection:
            output = output + hidden_states
        return output / attn.rescale_output_factor

    def _controlled(
        self,
        query: Float[Tensor, "rows heads pixels head_dim"],
        key: Float[Tensor, "rows heads places head_dim"],
        value: Float[Tensor, "rows heads places head_dim"],
        control: AttentionControl,
        *,
        is_cross: bool,
    ) -> Float[Tensor, "rows heads pixels head_dim"]:
        keep = control.keep
        if keep and (keep.cross if is_cross else query.shape[2] <= keep.self_pixels):
            control.states[self._name] = (query, key)
        if not is_cross:
            return controlled_self(query, key, value, control.edits, self._name)
        record = self._recordable and query.shape[2] == control.record_pixels
        if control.edits is not None:
            mixed, maps = edited_cross(
                query, key, value, control.edits, self._name, keep_maps=record
            )
            if maps is not None:
                control.maps.append(maps)
            return mixed
        if not record:
            return F.scaled_dot_product_attention(query, key, value)
        maps = attention_maps(query, key)
        control.maps.append(maps)
        return maps.to(value.dtype) @ value


def _context(
    attn: Attention, embeds: Float[Tensor, "rows tokens embed"]
) -> Float[Tensor, "rows tokens embed"]:
    """The input of keys or values, in the network's precision whatever the caller's is."""
    assert attn.to_q is not None
    embeds = embeds.to(attn.to_q.weight.dtype)
    return attn.norm_encoder_hidden_states(embeds) if attn.norm_cross else embeds


def _heads(attn: Attention, states: Float[Tensor, "rows queries channels"]) -> Rows:
    return states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def attention_maps(
    query: Float[Tensor, "*rows queries head_dim"], key: Float[Tensor, "*rows keys head"]
) -> Float[Tensor, "*rows queries keys"]:
    """Softmax over all keys, start and padding tokens included; in single precision at least."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    scores = query.to(dtype) @ key.to(dtype).transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1)


def controlled_self(
    query: Float[Tensor, "rows heads pixels head_dim"],
    key: Float[Tensor, "rows heads pixels head_dim"],
    value: Float[Tensor, "rows heads pixels head_dim"],
    edits: TargetEdits | None,
    layer: str,
) -> Float[Tensor, "rows heads pixels head_dim"]:
    """Self-attention; an active target row looks where its source row looks, at its own values.

    The source's map is the attention of the source's queries and keys, so none is materialised.
    """
    if edits is not None and query.shape[2] <= edits.self_pixels:
        query, key = query.clone(), key.clone()
        for branch, sources in enumerate((edits.free, edits.prompted)):
            found = _stacked(sources, layer)
            if found is None:
                continue
            active = edits.self_active[:, branch, None, None, None]
            query[branch::2] = torch.where(active, found[0], query[branch::2])
            key[branch::2] = torch.where(active, found[1], key[branch::2])
    return F.scaled_dot_product_attention(query, key, value)


def _stacked(
    sources: Sequence[LayerStates | None], layer: str
) -> tuple[Float[Tensor, "items heads pixels head_dim"], Tensor] | None:
    """Queries and keys of all items' sources at a layer; None if no item has any.

    An item without stands in with a neighbour's: whatever is computed with them has no weight.
    """
    there = [states for states in sources if states is not None]
    if not there:
        return None
    rows = [(states or there[0])[layer] for states in sources]
    return torch.stack([query for query, _ in rows]), torch.stack([key for _, key in rows])


def edited_maps(
    source: Float[Tensor, "items heads pixels tokens"],
    target: Float[Tensor, "items heads pixels tokens"],
    edits: TargetEdits,
) -> Float[Tensor, "items heads pixels tokens"]:
    """The target's cross maps after editing; not renormalised (StyleDiffusion spec §7)."""
    mapped = source @ edits.mapper[:, None]
    return edits.from_source[:, None, None] * mapped + edits.from_target[:, None, None] * target


def edited_cross(
    query: Float[Tensor, "rows heads pixels head_dim"],
    key: Float[Tensor, "rows heads tokens head_dim"],
    value: Float[Tensor, "rows heads tokens head_dim"],
    edits: TargetEdits,
    layer: str,
    *,
    keep_maps: bool,
) -> tuple[
    Float[Tensor, "rows heads pixels head_dim"],
    Float[Tensor, "items heads pixels tokens"] | None,
]:
    """Cross-attention of targets, the prompted row's edited; its maps if they are kept.

    Unless they are kept no map is materialised: an edited map times V_t is the source's attention
    over `mapper @ (from_source · V_t)` plus the target's own over `from_target · V_t` (spec §10.D).
    """
    source = _stacked(edits.prompted, layer)
    if keep_maps:
        free = F.scaled_dot_product_attention(query[::2], key[::2], value[::2])
        maps = attention_maps(query[1::2], key[1::2])
        if source is not None:
            maps = edited_maps(attention_maps(*source), maps, edits)
        mixed = maps.to(value.dtype) @ value[1::2]
        return torch.stack([free, mixed], dim=1).flatten(0, 1), maps
    if source is None:
        return F.scaled_dot_product_attention(query, key, value), None
    own = value.clone()
    own[1::2] *= edits.from_target[:, None, :, None]
    mixed = F.scaled_dot_product_attention(query, key, own)
    mapped = edits.mapper[:, None] @ (edits.from_source[:, None, :, None] * value[1::2])
    mixed[1::2] += F.scaled_dot_product_attention(*source, mapped.to(value.dtype))
    return mixed, None
