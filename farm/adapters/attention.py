"""Attention of a frozen diffusers UNet under per-call control: value input, recording, editing.

One processor sits on every attention layer from load on and holds no data. What a call wants comes
with the call, as an `AttentionControl` in diffusers' `cross_attention_kwargs`, so different edits
share a batch and concurrent calls share the network.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Bool, Float
from torch import Tensor

from farm.errors import ModelSetError

Rows = Float[Tensor, "rows heads queries head_dim"]
"""Queries, keys or values split into heads."""

PAIR_ROWS = ("source, no prompt", "target, no prompt", "source, prompt", "target, prompt")
"""Rows of an edited pair, in the order of a batch."""


@dataclass(frozen=True)
class PairEdits:
    """Editing of (source, target) pairs: four rows each, in the order of `PAIR_ROWS`.

    The conditional target row's cross map becomes
    `from_source · (A_source @ mapper) + from_target · A_target`; everything is data of a pair.
    """

    mapper: Float[Tensor, "pairs tokens tokens"]
    from_source: Float[Tensor, "pairs tokens"]
    from_target: Float[Tensor, "pairs tokens"]
    self_active: Bool[Tensor, "pairs 2"]
    """Whether the target takes the source's self-attention: without the prompt, with it."""
    self_pixels: int
    """Self-attention of more queries than this is never replaced."""


def pair_edits(
    *,
    mapper: Float[Tensor, "pairs tokens tokens"],
    refine_alpha: Float[Tensor, "pairs tokens"],
    equalizer: Float[Tensor, "pairs tokens"],
    cross_alpha: Float[Tensor, "pairs tokens"],
    self_active: Bool[Tensor, "pairs 2"],
    self_pixels: int,
) -> PairEdits:
    """Prompt-to-prompt's replace, refine and reweight as two weights per token.

    `a · eq · (r · A_s @ mapper + (1 - r) · A_t) + (1 - a) · A_t`, with a = cross_alpha and
    r = refine_alpha (StyleDiffusion spec §7).
    """
    edited = cross_alpha * equalizer
    return PairEdits(
        mapper=mapper,
        from_source=edited * refine_alpha,
        from_target=edited * (1 - refine_alpha) + (1 - cross_alpha),
        self_active=self_active,
        self_pixels=self_pixels,
    )


@dataclass(frozen=True)
class AttentionControl:
    """What one call asks of the attention layers.

    Attributes:
        value_embeds: input of the values of cross-attention, instead of the prompt's embeddings.
        record_pixels: record cross maps with so many queries, from down and up blocks.
        edits: edit pairs of rows.
        maps: the recorded maps in order of execution; (rows, heads, pixels, tokens), or with edits
            (pairs, 2, heads, pixels, tokens), the prompted rows alone, after editing.
    """

    value_embeds: Float[Tensor, "rows tokens embed"] | None = None
    record_pixels: int | None = None
    edits: PairEdits | None = None
    maps: list[Tensor] = field(default_factory=list)


def install_attention(unet: UNet2DConditionModel) -> None:
    """Put the controlled processor on every attention layer of a UNet, for good.

    Raises:
        ModelSetError: the UNet has attention of an unknown kind, or no cross-attention to record.
    """
    names = list(unet.attn_processors)
    unknown = [n for n in names if ".attn1." not in n and ".attn2." not in n]
    if unknown:
        raise ModelSetError(
            f"the UNet has an attention layer {unknown[0]!r}, expected attn1 and attn2 of "
            "transformer blocks alone; use a text-to-image UNet2DConditionModel"
        )
    if not any(".attn2." in n and _is_outside_mid(n) for n in names):
        raise ModelSetError(
            f"none of the UNet's {len(names)} attention layers is cross-attention in a down or up "
            "block, so nothing could be edited; use CrossAttnDownBlock2D and CrossAttnUpBlock2D"
        )
    processors = {n: ControlledAttention(recordable=_is_outside_mid(n)) for n in names}
    unet.set_attn_processor(processors)  # pyright: ignore[reportArgumentType]


def _is_outside_mid(name: str) -> bool:
    return name.startswith(("down_blocks.", "up_blocks."))


class ControlledAttention:
    """diffusers' `AttnProcessor2_0` with a per-call `control`; without one it computes the same.

    Args:
        recordable: whether this layer is in a down or up block.
    """

    def __init__(self, *, recordable: bool) -> None:
        self._recordable = recordable

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
        elif is_cross:
            record = self._recordable and query.shape[2] == control.record_pixels
            mixed = _controlled_cross(query, key, value, control, record=record)
        else:
            mixed = controlled_self(query, key, value, control.edits)
        assert attn.to_out is not None
        output = attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))
        if attn.residual_connection:
            output = output + hidden_states
        return output / attn.rescale_output_factor


def _context(
    attn: Attention, embeds: Float[Tensor, "rows tokens embed"]
) -> Float[Tensor, "rows tokens embed"]:
    return attn.norm_encoder_hidden_states(embeds) if attn.norm_cross else embeds


def _heads(attn: Attention, states: Float[Tensor, "rows queries channels"]) -> Rows:
    return states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def attention_maps(
    query: Float[Tensor, "*rows queries head_dim"], key: Float[Tensor, "*rows keys head"]
) -> Float[Tensor, "*rows queries keys"]:
    """Softmax over all keys, start and padding tokens included."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1)


def controlled_self(
    query: Float[Tensor, "rows heads pixels head_dim"],
    key: Float[Tensor, "rows heads pixels head_dim"],
    value: Float[Tensor, "rows heads pixels head_dim"],
    edits: PairEdits | None,
) -> Float[Tensor, "rows heads pixels head_dim"]:
    """Self-attention; an active target row looks where its source row looks, at its own values.

    The source's map is the attention of the source's queries and keys, so none is materialised.
    """
    if edits is not None and query.shape[2] <= edits.self_pixels:
        query, key = _shared(query, edits), _shared(key, edits)
    return F.scaled_dot_product_attention(query, key, value)


def _shared(
    states: Float[Tensor, "rows heads pixels head_dim"], edits: PairEdits
) -> Float[Tensor, "rows heads pixels head_dim"]:
    source, target = states.unflatten(0, (-1, 2, 2)).unbind(2)
    active = edits.self_active[:, :, None, None, None]
    return torch.stack([source, torch.where(active, source, target)], dim=2).flatten(0, 2)


def _controlled_cross(
    query: Float[Tensor, "rows heads pixels head_dim"],
    key: Float[Tensor, "rows heads tokens head_dim"],
    value: Float[Tensor, "rows heads tokens head_dim"],
    control: AttentionControl,
    *,
    record: bool,
) -> Float[Tensor, "rows heads pixels head_dim"]:
    if control.edits is not None:
        mixed, maps = edited_cross(query, key, value, control.edits, keep_maps=record)
        if maps is not None:
            control.maps.append(maps)
        return mixed
    if not record:
        return F.scaled_dot_product_attention(query, key, value)
    maps = attention_maps(query, key)
    control.maps.append(maps)
    return maps @ value


def edited_maps(
    source: Float[Tensor, "pairs heads pixels tokens"],
    target: Float[Tensor, "pairs heads pixels tokens"],
    edits: PairEdits,
) -> Float[Tensor, "pairs heads pixels tokens"]:
    """The target's cross maps after editing; not renormalised (StyleDiffusion spec §7)."""
    mapped = source @ edits.mapper[:, None]
    return edits.from_source[:, None, None] * mapped + edits.from_target[:, None, None] * target


def edited_cross(
    query: Float[Tensor, "rows heads pixels head_dim"],
    key: Float[Tensor, "rows heads tokens head_dim"],
    value: Float[Tensor, "rows heads tokens head_dim"],
    edits: PairEdits,
    *,
    keep_maps: bool,
) -> tuple[
    Float[Tensor, "rows heads pixels head_dim"],
    Float[Tensor, "pairs 2 heads pixels tokens"] | None,
]:
    """Cross-attention of pairs, the prompted target's edited; maps of the prompted rows if kept.

    Unless they are kept no map is materialised: an edited map times V_t is the source's attention
    over `mapper @ (from_source · V_t)` plus the target's own over `from_target · V_t` (spec §10.D).
    """
    q, k, v = (states.unflatten(0, (-1, 2, 2)) for states in (query, key, value))
    if keep_maps:
        free = F.scaled_dot_product_attention(
            q[:, 0].flatten(0, 1), k[:, 0].flatten(0, 1), v[:, 0].flatten(0, 1)
        ).unflatten(0, (-1, 2))
        source, target = attention_maps(q[:, 1], k[:, 1]).unbind(1)
        maps = torch.stack([source, edited_maps(source, target, edits)], dim=1)
        return torch.stack([free, maps @ v[:, 1]], dim=1).flatten(0, 2), maps
    own = value.unflatten(0, (-1, 2, 2)).clone()
    own[:, 1, 1] *= edits.from_target[:, None, :, None]
    mixed = F.scaled_dot_product_attention(query, key, own.flatten(0, 2))
    mapped = edits.mapper[:, None] @ (edits.from_source[:, None, :, None] * v[:, 1, 1])
    mixed[3::4] += F.scaled_dot_product_attention(q[:, 1, 0], k[:, 1, 0], mapped)
    return mixed, None
