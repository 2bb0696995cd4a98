"""Generation scale by scale, with guidance and with a source to keep (spec §2.7, §5.7)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from farm.backbones.infinity.attention import Tokens
from farm.backbones.infinity.cache import LayerCache, new_cache
from farm.backbones.infinity.loss import margins_of
from farm.backbones.infinity.quantiser import (
    accumulate,
    codes_of,
    next_inputs,
    resize,
    teacher_inputs,
    to_cells,
    to_tokens,
)
from farm.backbones.infinity.sampling import (
    Filter,
    KeyedNoise,
    draw,
    in_hindsight,
    probabilities,
)
from farm.backbones.infinity.schedules import Schedule
from farm.backbones.infinity.transformer import (
    PLAIN,
    Conditioning,
    Infinity,
    Logits,
    PassOptions,
)
from farm.errors import InvalidRequestError

_Known: TypeAlias = tuple[
    Bool[Tensor, "batch tokens token_bits"], Float[Tensor, "batch tokens token_bits"]
]


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance.

    Attributes:
        uncond: the other text; None: no guidance.
        strength: s of every scale, 1 = the text alone.
        temperature: by which logits are divided, of every scale.
        insertion: 0 mixes logits, s·cond + (1 - s)·uncond; -m mixes the tokens after the m-th
            block from the end.
    """

    uncond: Conditioning | None
    strength: Float[Tensor, "batch scales"]
    temperature: Float[Tensor, "batch scales"]
    insertion: int = 0


@dataclass(frozen=True)
class Keep:
    """A source to keep: `E_k = w S_k + (1 - w) G_k` at every scale, in codes of the last grid.

    Attributes:
        bits: the source's, of every scale.
        weight: w, 1 = the source, 0 = what is generated.
        log_odds: of a one, with which the source's own bits are thought to be drawn, of all
            scales one after the other (`source_log_odds`): what is generated is then drawn with the
            noise that gives the source under them. None: with noise of its own.
    """

    bits: Sequence[Tensor]
    weight: Float[Tensor, "batch 1 height width"]
    log_odds: Float[Tensor, "batch all_tokens token_bits"] | None = None


@dataclass(frozen=True)
class ScaleStep:
    """One scale.

    Attributes:
        logits: after guidance and temperature.
        bits: as drawn, before anything of a source is kept.
        codes: sum so far, at the last latent grid.
    """

    logits: Logits
    bits: Bool[Tensor, "batch tokens token_bits"]
    codes: Float[Tensor, "batch bits height width"]


@dataclass(frozen=True)
class Generation:
    """What stays the same from scale to scale.

    Attributes:
        transformer: the model.
        schedule: the scales.
        text: the text; under guidance, of all samples and then the other text of all samples.
        guided: whether there is another text.
        strength: see `Guidance`.
        temperature: see `Guidance`.
        insertion: see `Guidance`.
        rule: which values may be drawn.
        keep: what of a source stays.
        options: of every pass, for one copy of the samples.
    """

    transformer: Infinity
    schedule: Schedule
    text: Conditioning
    guided: bool
    strength: Float[Tensor, "batch scales"]
    temperature: Float[Tensor, "batch scales"]
    insertion: int
    rule: Filter
    keep: Keep | None
    options: PassOptions

    @torch.no_grad()
    def step(
        self,
        scale: int,
        cache: Sequence[LayerCache],
        noise: KeyedNoise | None,
        inputs: Tokens | None,
        total: Float[Tensor, "batch bits rows columns"] | None,
    ) -> tuple[ScaleStep, Float[Tensor, "batch next_tokens width"] | None]:
        """One scale after those in the cache, which is added to.

        Args:
            scale: its number from 0.
            cache: keys and values of the scales before.
            noise: to draw with; None takes the likelier value.
            inputs: what the scales before gave for this one; None for the first.
            total: their codes; None for the first.

        Returns:
            The step, and the inputs of the next one; None after the last.
        """
        schedule = self.schedule
        if self.guided and inputs is not None:
            inputs = inputs.repeat(2, 1, 1)
        options = self._options(scale)
        logits = self.transformer.next_scale(self.text, inputs, scale, schedule, cache, options)
        logits = self._guided(logits, scale)
        bits = _drawn(logits, self.rule, noise, self._known(scale))
        cells = to_cells(bits, schedule.grids[scale], schedule.cell)
        codes = resize(codes_of(cells), schedule.latent_size)
        if self.keep is not None:
            source = resize(codes_of(self.keep.bits[scale]), schedule.latent_size)
            codes = self.keep.weight * source + (1 - self.keep.weight) * codes
        total = codes if total is None else total + codes
        is_last = scale + 1 == schedule.num_scales
        following = None if is_last else next_inputs(total, schedule, scale + 1)
        return ScaleStep(logits, bits, total), following

    def _known(self, scale: int) -> _Known | None:
        """The source's bits of a scale and their odds, where the noise is theirs."""
        if self.keep is None or self.keep.log_odds is None:
            return None
        schedule = self.schedule
        start, length = schedule.starts[scale], schedule.lengths[scale]
        bits = to_tokens(self.keep.bits[scale], schedule.cell)
        return bits, self.keep.log_odds[:, start : start + length]

    def _options(self, scale: int) -> PassOptions:
        if not self.guided:
            return self.options
        blocks = len(self.text.text)
        return _for_both(self.options, blocks, self.insertion, self.strength[:, scale, None, None])

    def _guided(self, logits: Float[Tensor, "branches tokens two_bits"], scale: int) -> Logits:
        temperature = self.temperature[:, scale, None, None]
        if not self.guided:
            return logits / temperature
        strength = self.strength[:, scale, None, None]
        return _mixed(logits, self.insertion, strength, temperature)


@torch.no_grad()
def source_log_odds(
    transformer: Infinity,
    given: Conditioning,
    schedule: Schedule,
    guidance: Guidance,
    bits: Sequence[Tensor],
    *,
    options: PassOptions = PLAIN,
) -> Float[Tensor, "batch all_tokens token_bits"]:
    """The log odds of a one for every bit of a picture, had `generate` drawn it.

    One pass over all scales, of two copies with guidance, each scale from the picture's own bits
    before. What a `Filter` would not let be drawn still has its odds.

    Args:
        transformer: the model.
        given: the text.
        schedule: the scales.
        guidance: how strongly the text counts.
        bits: of every scale.
        options: of the pass, for one copy of the samples.
    """
    check_insertion(transformer, guidance.insertion)
    inputs = teacher_inputs(accumulate(bits, schedule), schedule)
    lengths = torch.tensor(schedule.lengths, device=inputs.device)

    def by_token(scales: Float[Tensor, "batch scales"]) -> Float[Tensor, "batch all_tokens 1"]:
        return scales.repeat_interleave(lengths, dim=1)[..., None]

    temperature, strength = by_token(guidance.temperature), by_token(guidance.strength)
    if guidance.uncond is None:
        logits, _ = transformer(given, inputs, schedule, options)
        return margins_of(logits / temperature)
    both = joined(given, guidance.uncond)
    options = _for_both(options, len(both.text), guidance.insertion, strength)
    logits, _ = transformer(both, inputs.repeat(2, 1, 1), schedule, options)
    return margins_of(_mixed(logits, guidance.insertion, strength, temperature))


def generate(
    transformer: Infinity,
    given: Conditioning,
    schedule: Schedule,
    guidance: Guidance,
    rule: Filter,
    noise: KeyedNoise | None,
    *,
    keep: Keep | None = None,
    options: PassOptions = PLAIN,
) -> Iterator[ScaleStep]:
    """Scale after scale; the last step's codes are the picture.

    Args:
        transformer: the model.
        given: the text.
        schedule: the scales.
        guidance: how strongly the text counts.
        rule: which values may be drawn.
        noise: to draw with; None takes the likelier value.
        keep: what of a source stays.
        options: of every pass.
    """
    check_insertion(transformer, guidance.insertion)
    generation = Generation(
        transformer,
        schedule,
        given if guidance.uncond is None else joined(given, guidance.uncond),
        guidance.uncond is not None,
        guidance.strength,
        guidance.temperature,
        guidance.insertion,
        rule,
        keep,
        options,
    )
    cache = new_cache(schedule, transformer.config.depth)
    total, inputs = None, None
    for scale in range(schedule.num_scales):
        step, inputs = generation.step(scale, cache, noise, inputs, total)
        total = step.codes
        yield step


def check_insertion(transformer: Infinity, insertion: int) -> None:
    """Whether guidance can be inserted there.

    Raises:
        InvalidRequestError: there is no such block.
    """
    depth = transformer.config.depth
    if insertion > 0 or depth + insertion < 1:
        raise InvalidRequestError(
            f"found the insertion {insertion}, expected 0 (logits) or -1 to {1 - depth} (a block "
            "from the end): change cfg_insertion"
        )


def joined(first: Conditioning, second: Conditioning) -> Conditioning:
    """Two batches as one; the shorter texts are filled up with rows that do not count."""
    lengths = [given.text[0][0].shape[2] for given in (first, second)]
    most = max(lengths)
    filled = [_filled(given, most) for given in (first, second)]
    text = tuple(
        (torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]]))
        for a, b in zip(filled[0].text, filled[1].text, strict=True)
    )
    present = None
    if any(given.present is not None for given in filled):
        masks = [_present(given, most) for given in filled]
        present = torch.cat(masks)
    return Conditioning(
        pooled=torch.cat([first.pooled, second.pooled]),
        modulation=torch.cat([first.modulation, second.modulation]),
        text=text,
        present=present,
    )


def _filled(given: Conditioning, rows: int) -> Conditioning:
    missing = rows - given.text[0][0].shape[2]
    if missing == 0:
        return given
    present = torch.nn.functional.pad(_present(given, rows - missing), (0, missing), value=False)
    text = tuple(
        (
            torch.nn.functional.pad(key, (0, 0, 0, missing)),
            torch.nn.functional.pad(value, (0, 0, 0, missing)),
        )
        for key, value in given.text
    )
    return replace(given, text=text, present=present)


def _present(given: Conditioning, rows: int) -> Bool[Tensor, "batch rows"]:
    if given.present is not None:
        return given.present
    return torch.ones(len(given.pooled), rows, dtype=torch.bool, device=given.pooled.device)


def _for_both(
    options: PassOptions, blocks: int, insertion: int, strength: Float[Tensor, "batch _ 1"]
) -> PassOptions:
    """For both branches, and with their tokens mixed where guidance is inserted at a block."""
    if options.lora is not None:
        options = replace(options, lora=options.lora.repeated(2))
    if insertion == 0:
        return options

    def mix(block: int, x: Tokens) -> Tokens:
        if block != blocks + insertion:
            return x
        cond, uncond = x.chunk(2)
        return (strength * cond + (1 - strength) * uncond).repeat(2, 1, 1)

    return replace(options, after_block=mix)


def _mixed(
    logits: Float[Tensor, "branches tokens two_bits"],
    insertion: int,
    strength: Float[Tensor, "batch _ 1"],
    temperature: Float[Tensor, "batch _ 1"],
) -> Logits:
    """Both branches' logits as one, by temperature."""
    cond, uncond = logits.chunk(2)
    if insertion != 0:
        return cond / temperature
    return strength * (cond / temperature) + (1 - strength) * (uncond / temperature)


def _drawn(
    logits: Logits, rule: Filter, noise: KeyedNoise | None, known: _Known | None
) -> Bool[Tensor, "batch tokens token_bits"]:
    pairs = logits.unflatten(-1, (-1, 2))
    if noise is None or rule.top_k == 1:
        return pairs[..., 1] > pairs[..., 0]
    each = noise.draw(pairs.shape[1] * pairs.shape[2], logits.device).view(pairs.shape)
    if known is not None:
        each = in_hindsight(each, *known)
    return draw(probabilities(pairs, rule), each)
