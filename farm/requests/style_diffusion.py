"""Requests of StyleDiffusion."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from farm.requests.base import BaseRequest, Prompt, Strict, Tau, Word

GENERATED = "generated:"
"""As `image`: the source is what the model set draws for the source prompt with this seed."""
MAX_CELLS = 64
"""Edits that one request may ask for: further targets times combinations of taus."""

Weight = Annotated[float, Field(ge=-100, le=100)]
EditType = Literal["replace", "refine"]


class Interval(Strict):
    """A window of the sampling, both ends as shares of all steps."""

    begin: Tau = 0.0
    end: Tau

    @model_validator(mode="after")
    def _in_order(self) -> "Interval":
        if self.begin > self.end:
            raise ValueError(f"the window begins at {self.begin:g} and ends at {self.end:g}")
        return self


def _shares(value: Any) -> Any:
    """Says what is wrong with a tau before the union of its forms says what it is not."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not items:
        raise ValueError("an empty list: name at least one value")
    for item in items:
        ends = item.values() if isinstance(item, Mapping) else [item]
        for end in ends:
            share = _number(end)
            if not 0 <= share <= 1:
                raise ValueError(f"{share:g} is outside 0 to 1: it is a share of all steps")
    return tuple(value) if isinstance(value, list) else value


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"found {value!r:.80}, expected a number from 0 to 1, which is a share of all steps"
        ) from None


Shares = Annotated[Tau | tuple[Tau, ...], BeforeValidator(_shares)]
"""A share of the steps; several are tried one by one, in every combination with the others."""
Windows = Annotated[Tau | Interval | tuple[Tau | Interval, ...], BeforeValidator(_shares)]
"""The same, where a window may begin later than with the first step."""
WordWindow = Annotated[Tau | Interval, BeforeValidator(_shares)]


class FurtherTarget(Strict):
    """Another edit of the same source in the same call; the source is computed once for all.

    What is said of words in `parameters` is said of the request's own target: a further target says
    for itself what it needs.
    """

    target_prompt: Prompt
    target_word: Word | None = None
    edit_type: EditType | None = None
    equalizer: dict[Word, Weight] | None = None
    cross_windows: dict[Word, WordWindow] | None = None
    source_words: tuple[Word, ...] | None = None
    target_words: tuple[Word, ...] | None = None


class StyleDiffusionParameters(Strict):
    """What a user may set; what is left out is the model set's default."""

    num_steps: Annotated[int, Field(ge=2, le=200)] | None = None
    """Timesteps T of inversion and editing."""
    guidance_scale: Annotated[float, Field(ge=1, le=30)] | None = None
    """How strongly the words are followed, in inversion and editing; 1 is without guidance."""
    learned: Literal["values", "null_text", "text", "nothing", "direct"] | None = None
    """What the inversion trains: the values' input (StyleDiffusion), the empty prompt's embeddings
    (null-text inversion), the source prompt's (text inversion), nothing (plain DDIM), nothing while
    the source goes back exactly as it came (Direct Inversion)."""
    training: Literal["exact", "forced", "forced_polish"] | None = None
    """Of values: timestep after timestep; all at once, the source pinned; both, the first short."""
    inner_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Optimiser steps at the noisiest timestep; the budget decays from there."""
    forced_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Optimiser steps of each timestep where all are trained at once."""
    polish_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """At most so many a timestep in the chain after that."""
    context_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Optimiser steps of each timestep where embeddings are learned."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the inversion's training, at the noisiest timestep."""
    attention_weight: Annotated[float, Field(ge=0, le=100)] | None = None
    """Of the loss that keeps attention where the inversion had it; 0 drops it."""
    value_form: Literal["modulated", "direct"] | None = None
    """`c·s + b` as released, or the mapping network's output itself as in the paper."""
    tau_v: Shares | None = None
    """Share of steps in which the target row's values are the learned ones."""
    tau_c: Windows | None = None
    """Share of steps in which the target takes the source's cross-attention."""
    tau_s: Windows | None = None
    """Share of steps in which the target takes the source's self-attention."""
    tau_u: Windows | None = None
    """The same for the unconditional branch."""
    fresh_noise: Tau | None = None
    """Share of the noise that the target starts from which is drawn anew from the request's seed
    instead of inverted: 0 keeps the source's layout, 1 forgets it."""
    restructure: bool | None = None
    """Whether a thing becomes another, with another outline; by default as the prompts' nouns say.
    Some model sets have other defaults for that."""
    edit_type: EditType | None = None
    """Words one for one, or words added and dropped; by default as the numbers of words say."""
    equalizer: dict[Word, Weight] | None = None
    """Factors of the attention to words of the target prompt; with equal prompts the whole edit."""
    cross_windows: dict[Word, WordWindow] | None = None
    """Words of the target prompt with a window of their own instead of tau_c."""
    local_blend: bool | None = None
    """Keep what lies outside the words' attention."""
    blend_threshold: Tau | None = None
    """Of the words' attention, as a share of its largest: what is above is blended in."""
    blend_pool: Literal[1, 3, 5] | None = None
    """Cells of the attention map by which the blend's region is widened."""
    blend_grow: Annotated[int, Field(ge=0, le=8)] | None = None
    """Cells of the map by which the region grows after that, but not over other things."""
    blend_start: Tau | None = None
    """Share of the steps after which blending begins."""
    paste_back: bool | None = None
    """With local blend: keep the original's own pixels where nothing was to change."""
    paste_threshold: Tau | None = None
    """And where the picture changed by no more than this, of 1."""
    source_words: tuple[Word, ...] | None = None
    """Words of the source prompt that the blend follows; by default the words that change."""
    target_words: tuple[Word, ...] | None = None
    """Words of the target prompt that the blend follows; by default the words that are new."""
    source_subtract: tuple[Word, ...] | None = None
    """Words of the source prompt whose region the blend leaves alone."""
    target_subtract: tuple[Word, ...] | None = None
    """Likewise of the target prompt."""
    subtract_threshold: Tau | None = None
    """Like blend_threshold, of the words to leave alone."""
    shield_kept: bool | None = None
    """Words that both prompts have keep their place out of the blend."""
    shield_threshold: Tau | None = None
    """Like blend_threshold, of the words that keep their place."""
    attention_map: bool | None = None
    """Show where the words that change are looked at; with local blend it is known anyway."""
    further_targets: tuple[FurtherTarget, ...] = ()
    """Other target prompts of the same picture in the same edit."""
    reference: bool = False
    """Reproduce the released code's arithmetic, quirks included."""

    @model_validator(mode="after")
    def _belong_together(self) -> "StyleDiffusionParameters":
        if self.learned not in (None, "values"):
            for name in _OF_VALUES:
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} is about learned values, but learned is {self.learned!r}: "
                        f"leave {name} out, or learn values"
                    )
        if self.local_blend is False and (self.source_subtract or self.target_subtract):
            raise ValueError(
                "source_subtract and target_subtract take from the local blend's region, but "
                "local_blend is false: leave them out, or blend"
            )
        if self.num_cells > MAX_CELLS:
            raise ValueError(
                f"{self.num_cells} edits in one request ({1 + len(self.further_targets)} targets "
                f"times the combinations of taus), at most {MAX_CELLS} are possible: shorten lists"
            )
        return self

    @property
    def num_cells(self) -> int:
        """Edits that the request asks for: targets times combinations of taus."""
        cells = 1 + len(self.further_targets)
        for tau in (self.tau_v, self.tau_c, self.tau_s, self.tau_u):
            cells *= len(tau) if isinstance(tau, tuple) else 1
        return cells


_OF_VALUES = (
    "training",
    "inner_steps",
    "forced_steps",
    "polish_steps",
    "attention_weight",
    "value_form",
)


class StyleDiffusionRequest(BaseRequest):
    """Learn how a diffusion model would have drawn the picture, then redraw it with other words."""

    method: Literal["style_diffusion"] = "style_diffusion"
    parameters: StyleDiffusionParameters = StyleDiffusionParameters()

    @property
    def is_generated(self) -> bool:
        return self.image == GENERATED

    @model_validator(mode="after")
    def _something_to_edit(self) -> "StyleDiffusionRequest":
        same = self.source_prompt.split() == self.target_prompt.split() != []
        if not (same and self.parameters.equalizer):  # weighing the words of one prompt is an edit
            super()._something_to_edit()  # pyright: ignore[reportCallIssue]
        return self

    @model_validator(mode="after")
    def _nothing_to_learn(self) -> "StyleDiffusionRequest":
        learned = self.parameters.learned
        if self.is_generated and learned not in (None, "nothing"):
            raise ValueError(
                f"a generated source is known already, but parameters.learned is {learned!r}: "
                "leave it out, or name an image"
            )
        return self
