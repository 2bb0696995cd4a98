"""What prompts, configuration and model set say about an edit, before any network runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from farm.errors import InvalidPromptError, InvalidRequestError, ModelSetError
from farm.methods.learnable_regions.config import AnchorConfig, LearnableRegionsConfig
from farm.model_spec import ModelSpec, RegionSpec

_MOST_REGIONS = 4096
"""Regions whose boxes and losses are compared: all of the released program's are 99."""

LongPrompt = Literal["refuse", "truncate"]


@runtime_checkable
class Tokens(Protocol):
    """A prompt as padded token ids."""

    @property
    def ids(self) -> tuple[int, ...]: ...


@runtime_checkable
class Tokenizer(Protocol):
    """Prompts to tokens; raises InvalidPromptError where a prompt is too long."""

    def encode(self, prompt: str) -> Tokens: ...


@dataclass(frozen=True)
class PromptPlan:
    """The words of an edit as token ids.

    Attributes:
        source: what the picture shows, as CLIP is told.
        target: what it shall show, as CLIP and the inpainting model are told.
        empty: the empty prompt, for guidance.
        cut: prompts that were shortened, by name, as they are used.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    empty: tuple[int, ...]
    cut: Mapping[str, str] = field(default_factory=dict[str, str])


def plan_prompts(
    tokenizer: Tokenizer,
    source_prompt: str,
    target_prompt: str,
    config: LearnableRegionsConfig,
    long_prompt: LongPrompt = "refuse",
) -> PromptPlan:
    """Prompts in the template, as tokens.

    Args:
        tokenizer: of the model set.
        source_prompt: the caption; its class alone is enough ("trees").
        target_prompt: what shall be there.
        config: says the template, and whether the caption goes into it (Q9).
        long_prompt: whether words are dropped from the end of a prompt that is too long.

    Raises:
        InvalidPromptError: a prompt is too long and may not be shortened, or the template alone is.
    """
    template = config.analysis.template
    caption = "{}" if config.analysis.quirks.bare_caption else template
    cut: dict[str, str] = {}
    found: dict[str, tuple[int, ...]] = {}
    pairs = (("source_prompt", source_prompt, caption), ("target_prompt", target_prompt, template))
    for name, prompt, frame in pairs:
        used = prompt
        if long_prompt == "truncate":
            used = _shortened(tokenizer, prompt, frame)
        try:
            found[name] = tokenizer.encode(frame.replace("{}", used)).ids
        except InvalidPromptError as error:
            raise InvalidPromptError(f"{name}: {error.message}") from error
        if used != prompt:
            cut[name] = used
    return PromptPlan(
        source=found["source_prompt"],
        target=found["target_prompt"],
        empty=tokenizer.encode("").ids,
        cut=cut,
    )


def _shortened(tokenizer: Tokenizer, prompt: str, frame: str) -> str:
    """As many of the prompt's first words as fit; all of it, unchanged, where it fits."""
    if _fits(tokenizer, frame.replace("{}", prompt)):
        return prompt
    words = prompt.split()
    low, high = 0, len(words) - 1
    while low < high:  # the longest prefix that fits: more words never have fewer tokens
        middle = (low + high + 1) // 2
        fits = _fits(tokenizer, frame.replace("{}", " ".join(words[:middle])))
        low, high = (middle, high) if fits else (low, middle - 1)
    if low == 0:
        raise InvalidPromptError(
            f"not one word of {prompt!r:.80} fits into the template {frame!r}: shorten the "
            "template, or the first word"
        )
    return " ".join(words[:low])


def _fits(tokenizer: Tokenizer, prompt: str) -> bool:
    try:
        tokenizer.encode(prompt)
    except InvalidPromptError:
        return False
    return True


def region_spec(spec: ModelSpec) -> RegionSpec:
    """The constants of the set's DINO and inpainting model.

    Raises:
        ModelSetError: it has none.
    """
    if spec.regions is None:
        raise ModelSetError(
            f"the model set {spec.name!r} has no DINO and no inpainting UNet, which Learnable "
            "Regions needs: choose another model set"
        )
    return spec.regions


def check_config(config: LearnableRegionsConfig, spec: ModelSpec) -> None:
    """Refuse numbers that the model set's grid has no room for.

    Raises:
        InvalidRequestError: saying which, and the limit.
        ModelSetError: the set lacks networks.
    """
    grid = region_spec(spec).grid
    anchors = config.search.anchors
    if not config.search.quirks.border_rule:
        _check_windows(anchors, grid)
    if anchors.point_number > grid**2:
        raise InvalidRequestError(
            f"point_number is {anchors.point_number}, but DINO's map has {grid}x{grid} cells: "
            f"use at most {grid**2}"
        )
    regions = anchors.point_number * anchors.num_sizes
    if regions > _MOST_REGIONS:
        raise InvalidRequestError(
            f"{anchors.point_number} anchors with {anchors.num_sizes:,} sizes each are {regions:,} "
            f"regions, at most {_MOST_REGIONS:,} can be compared: use a larger window_step or "
            "fewer anchors"
        )
    if not config.selection.rungs:
        raise InvalidRequestError("rungs is empty: name at least one (regions, steps)")
    counts = [keep for keep, _ in config.selection.rungs]
    if counts != sorted(counts, reverse=True):
        raise InvalidRequestError(
            f"rungs keep {counts} regions one after the other: each must keep at most as many as "
            "the one before"
        )
    most = spec.num_train_timesteps // 2
    named = [("preview_steps", config.search.preview_steps)]
    named += [("num_steps", steps) for _, steps in config.selection.rungs]
    for name, steps in named:
        if steps > most:
            raise InvalidRequestError(
                f"{name} is {steps}, but the model has {spec.num_train_timesteps} noise levels: "
                f"use at most {most}"
            )


def _check_windows(anchors: AnchorConfig, grid: int) -> None:
    """The largest region must be smaller than the picture, or it is no region."""
    limit = grid / 2
    ratio = max(max(r, 1 / r) for r in anchors.aspect_ratios) ** 0.5
    if anchors.max_window_size * ratio > limit:
        raise InvalidRequestError(
            f"max_window_size is {anchors.max_window_size:g} cells to each side of an anchor"
            f"{'' if ratio == 1 else f', {ratio:g} times that along the longer side'}, but DINO's "
            f"map has {grid}x{grid} cells: use at most {limit / ratio:g}"
        )
