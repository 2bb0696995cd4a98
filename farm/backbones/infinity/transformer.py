"""The Infinity transformer: text and the scales so far to logits of the next bits (spec §2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from farm.backbones.infinity.attention import KeyValue, Tokens, linear
from farm.backbones.infinity.blocks import Block, BlockInputs, Shares, Watched, plain_norm
from farm.backbones.infinity.cache import LayerCache
from farm.backbones.infinity.config import InfinityConfig
from farm.backbones.infinity.lora import Lora
from farm.backbones.infinity.rope import rope_table
from farm.backbones.infinity.schedules import Schedule
from farm.backbones.infinity.text_conditioning import (
    AttentivePool,
    Present,
    Rows,
    TextNorm,
    context_projection,
)

Logits = Float[Tensor, "batch tokens two_bits"]
"""Channel c of a token is at 2c (bit 0) and 2c + 1 (bit 1)."""


@dataclass(frozen=True)
class Conditioning:
    """All that depends on the text alone, computed once for all scales.

    Attributes:
        pooled: the text as one vector: content of the first token, and the adaptive norms'.
        modulation: shared part of the blocks' adaptive norms.
        text: keys and values of every block's cross-attention.
        present: text rows that count; None: all.
    """

    pooled: Float[Tensor, "batch width"]
    modulation: Float[Tensor, "batch 6 width"]
    text: tuple[KeyValue, ...]
    present: Bool[Tensor, "batch rows"] | None


@dataclass(frozen=True)
class PassOptions:
    """How a pass is run.

    Attributes:
        biases: False leaves out the attention biases that the released EditInfinity drops (§0.1).
        lora: adapters of each sample.
        branch_scale: factors of self-attention and feed-forward of every block: dropped paths.
        watched: text rows whose attention is asked for.
        recompute: keep the blocks' inputs alone for the backward pass.
        after_block: changes the tokens after a block, by its number.
    """

    biases: bool = True
    lora: Lora | None = None
    branch_scale: Float[Tensor, "batch blocks 2"] | None = None
    watched: Watched | None = None
    recompute: bool = False
    after_block: Callable[[int, Tokens], Tokens] | None = None


PLAIN = PassOptions()


class Infinity(nn.Module):
    """Names of parameters are those of the released state dicts, built without chunks."""

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        width, text_width = config.width, config.text_width
        self.config = config
        self.cfg_uncond = nn.Parameter(torch.zeros(config.text_rows, text_width))
        self.pos_start = nn.Parameter(torch.zeros(1, 1, width))
        self.text_norm = TextNorm(text_width)
        pool = AttentivePool(text_width, width, config.pool_heads)
        self.text_proj_for_sos = nn.ModuleDict({"ca": pool})
        self.text_proj_for_ca = context_projection(text_width, width)
        self.lvl_embed = nn.Embedding(config.levels, width)
        self.word_embed = nn.Linear(config.token_bits, width)
        self.shared_ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head_nm = nn.ModuleDict({"ada_lin": ada_lin})
        self.head = nn.Linear(width, 2 * config.token_bits)

    def condition(
        self, text: Rows, present: Present | None = None, *, biases: bool = True
    ) -> Conditioning:
        """Text rows to what the blocks take of them.

        Args:
            text: last hidden states of the text encoder, learned rows at the end.
            present: False for rows after a shorter text's end.
            biases: as in `PassOptions`.
        """
        text = self.text_norm(text)
        pooled = self.text_proj_for_sos["ca"](text, present, biases=biases)
        context = self.text_proj_for_ca(text)
        modulation = self.shared_ada_lin(pooled).float().unflatten(1, (6, -1))
        keys = tuple(block.ca.keys_values(context, biases=biases) for block in self._blocks())
        return Conditioning(pooled.float(), modulation, keys, present)

    def unconditional(self, rows: int) -> Float[Tensor, "{rows} text_width"]:
        """The text that stands for no text: its first `rows` rows (spec §0.9)."""
        return self.cfg_uncond[:rows]

    def forward(
        self,
        given: Conditioning,
        inputs: Float[Tensor, "batch _ token_bits"],
        schedule: Schedule,
        options: PassOptions = PLAIN,
    ) -> tuple[Logits, Shares | None]:
        """All scales in one pass, each seeing those before it.

        Args:
            given: the text.
            inputs: of all scales but the first (`quantiser.teacher_inputs`).
            schedule: the scales.
            options: of this pass.

        Returns:
            Logits of every token, and the attention of `options.watched`, mean over blocks.
        """
        x = torch.cat([self._first(given), linear(self.word_embed, inputs).float()], dim=1)
        x = x + self.lvl_embed(_levels(schedule, x.device)).float()
        rope = rope_table(schedule, self.config.head_dim, str(x.device))
        x, shares = self._run(x, given, rope, schedule.lengths, None, options)
        return self._logits(x, given), shares

    def next_scale(
        self,
        given: Conditioning,
        inputs: Float[Tensor, "batch tokens token_bits"] | None,
        scale: int,
        schedule: Schedule,
        cache: Sequence[LayerCache],
        options: PassOptions = PLAIN,
    ) -> Logits:
        """One scale after those in the cache; the first has no inputs."""
        x = self._first(given) if inputs is None else linear(self.word_embed, inputs).float()
        x = x + self.lvl_embed.weight[scale].float()
        start, length = schedule.starts[scale], schedule.lengths[scale]
        rope = rope_table(schedule, self.config.head_dim, str(x.device))
        rope = rope[:, start : start + length]
        x, _ = self._run(x, given, rope, (length,), cache, options)
        return self._logits(x, given)

    def _blocks(self) -> list[Block]:
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        assert len(blocks) == self.config.depth
        return blocks

    def _first(self, given: Conditioning) -> Float[Tensor, "batch 1 width"]:
        return given.pooled[:, None] + self.pos_start

    def _run(
        self,
        x: Tokens,
        given: Conditioning,
        rope: Float[Tensor, "2 tokens pairs"],
        lengths: Sequence[int],
        cache: Sequence[LayerCache] | None,
        options: PassOptions,
    ) -> tuple[Tokens, Shares | None]:
        total = None
        for number, block in enumerate(self._blocks()):
            block_inputs = BlockInputs(
                modulation=given.modulation,
                text=given.text[number],
                present=given.present,
                rope=rope,
                lengths=lengths,
                cache=None if cache is None else cache[number],
                lora=None if options.lora is None else options.lora.layers(number),
                branch_scale=(
                    None if options.branch_scale is None else options.branch_scale[:, number]
                ),
                biases=options.biases,
            )
            if options.recompute and torch.is_grad_enabled():
                x, shares = checkpoint(block, x, block_inputs, options.watched, use_reentrant=False)
            else:
                x, shares = block(x, block_inputs, options.watched)
            if shares is not None:
                total = shares if total is None else total + shares
            if options.after_block is not None:
                x = options.after_block(number, x)
        return x, None if total is None else total / self.config.depth

    def _logits(self, x: Tokens, given: Conditioning) -> Logits:
        scale, shift = self.head_nm["ada_lin"](given.pooled)[:, None].float().chunk(2, dim=-1)
        return linear(self.head, plain_norm(x) * (1 + scale) + shift).float()


def _levels(schedule: Schedule, device: torch.device) -> Int[Tensor, " tokens"]:
    lengths = torch.tensor(schedule.lengths)
    return torch.arange(schedule.num_scales).repeat_interleave(lengths).to(device)
