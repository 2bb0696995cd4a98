"""What two prompts and a configuration say about an edit, before any network runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.errors import InvalidPromptError
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.mappers import (
    TokenMap,
    equalizer,
    refinement_map,
    replacement_map,
)
from farm.methods.style_diffusion.windows import cross_windows, window_of
from farm.methods.style_diffusion.words import (
    Tokenizer,
    Tokens,
    changed_tokens,
    find_words,
    kept_content,
    words_of,
)


@dataclass(frozen=True)
class EditPlan:
    """How the target's attention follows from the source's.

    Attributes:
        source: tokens of the source prompt.
        target: tokens of the target prompt.
        token_map: which source tokens' maps the target's tokens take.
        equalizer: factor of each target token's map.
        cross_alpha: a row per step and one more; 1 where a target token's map is replaced.
        blend_tokens: 1 at the tokens of the words that the local blend follows; source, target.
        subtract_tokens: 1 at those whose region it leaves alone; None without.
        kept_tokens: for each word that both prompts have and that shields its place, 1 at it.
    """

    source: Tokens
    target: Tokens
    token_map: TokenMap
    equalizer: Float[Tensor, " tokens"]
    cross_alpha: Float[Tensor, "rows tokens"]
    blend_tokens: Float[Tensor, "2 tokens"]
    subtract_tokens: Float[Tensor, "2 tokens"] | None = None
    kept_tokens: tuple[Float[Tensor, "2 tokens"], ...] = ()

    @property
    def word_sets(self) -> Float[Tensor, "sets 2 tokens"]:
        """Blend words, then those to subtract if there are any, then each kept word."""
        sets = [self.blend_tokens, self.subtract_tokens, *self.kept_tokens]
        return torch.stack([tokens for tokens in sets if tokens is not None])


def plan_edit(
    source: Tokens,
    target: Tokens,
    config: EditingConfig,
    num_steps: int,
    target_word: str | None = None,
) -> EditPlan:
    """Everything about an edit that follows from words alone; cheap, so requests check it early.

    Args:
        source: tokens of the source prompt.
        target: tokens of the target prompt.
        config: says which words count, where the prompts themselves do not.
        num_steps: timesteps of the sampling.
        target_word: what is new in the target prompt, unless `config.target_words` says it.

    Raises:
        InvalidPromptError: words are to be replaced one for one but differ in number, or the
            local blend has no word to follow.
        UnknownWordError: a word is not in its prompt.
    """
    exceptions = [
        (find_words(target, word), window_of(window)) for word, window in config.cross_windows
    ]
    windows = cross_windows(num_steps, len(target.ids), window_of(config.tau_c), exceptions)
    return EditPlan(
        source=source,
        target=target,
        token_map=_token_map(source, target, config),
        equalizer=equalizer(target, config.equalizer),
        cross_alpha=windows,
        blend_tokens=_blend_tokens(source, target, config, target_word),
        subtract_tokens=_subtract_tokens(source, target, config),
        kept_tokens=_kept_tokens(source, target, config),
    )


def plan_prompts(
    tokenizer: Tokenizer,
    source_prompt: str,
    target_prompt: str,
    config: EditingConfig,
    num_steps: int,
    target_word: str | None = None,
) -> EditPlan:
    """`plan_edit` of two prompts as text; a prompt that is too long raises InvalidPromptError."""
    source, target = tokenizer.encode(source_prompt), tokenizer.encode(target_prompt)
    return plan_edit(source, target, config, num_steps, target_word)


def _token_map(source: Tokens, target: Tokens, config: EditingConfig) -> TokenMap:
    edit_type = config.edit_type
    if edit_type is None:  # D6
        same = len(words_of(source.prompt)) == len(words_of(target.prompt))
        edit_type = "replace" if same else "refine"
    build = replacement_map if edit_type == "replace" else refinement_map
    return build(source, target, reference=config.reference)


def _blend_tokens(
    source: Tokens, target: Tokens, config: EditingConfig, target_word: str | None
) -> Float[Tensor, "2 tokens"]:
    """Marks of the blend words; by default those that change, or else those that are weighed."""
    changed = changed_tokens(source, target, content=config.shield_kept)  # D7
    new = config.target_words
    if new is None and target_word is not None:
        new = (target_word,)
    marks = torch.zeros(2, len(source.ids))
    rows = zip((source, target), (config.source_words, new), changed, strict=True)
    for mark, (tokens, words, positions) in zip(marks, rows, strict=True):
        mark[positions if words is None else _positions(tokens, words)] = 1
    if not marks.any():
        weighed = [word for word, _ in config.equalizer]
        marks[1, _positions(target, weighed)] = 1
        if words_of(source.prompt) == words_of(target.prompt):
            marks[0, _positions(source, weighed)] = 1
    if config.local_blend and not marks.any():
        raise InvalidPromptError(
            f"nothing changes from {source.prompt!r} to {target.prompt!r}, so the local blend has "
            "no word to follow: change a word, name source_words or set local_blend to false"
        )
    return marks


def _subtract_tokens(
    source: Tokens, target: Tokens, config: EditingConfig
) -> Float[Tensor, "2 tokens"] | None:
    if not (config.source_subtract or config.target_subtract):
        return None
    marks = torch.zeros(2, len(source.ids))
    marks[0, _positions(source, config.source_subtract)] = 1
    marks[1, _positions(target, config.target_subtract)] = 1
    return marks


def _kept_tokens(
    source: Tokens, target: Tokens, config: EditingConfig
) -> tuple[Float[Tensor, "2 tokens"], ...]:
    if not (config.local_blend and config.shield_kept):
        return ()
    sets: list[Tensor] = []
    for old, new in kept_content(source, target):
        marks = torch.zeros(2, len(source.ids))
        marks[0, old] = 1
        marks[1, new] = 1
        sets.append(marks)
    return tuple(sets)


def _positions(tokens: Tokens, words: Sequence[str]) -> list[int]:
    return [n for word in words for n in find_words(tokens, word)]
