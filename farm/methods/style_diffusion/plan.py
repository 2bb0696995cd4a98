"""What two prompts and a configuration say about an edit, before any network runs."""

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
from farm.methods.style_diffusion.windows import cross_windows
from farm.methods.style_diffusion.words import (
    Tokenizer,
    Tokens,
    changed_words,
    find_words,
    word_positions,
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
    """

    source: Tokens
    target: Tokens
    token_map: TokenMap
    equalizer: Float[Tensor, " tokens"]
    cross_alpha: Float[Tensor, "rows tokens"]
    blend_tokens: Float[Tensor, "2 tokens"]


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
    exceptions = [(find_words(target, word), window) for word, window in config.cross_windows]
    return EditPlan(
        source=source,
        target=target,
        token_map=_token_map(source, target, config),
        equalizer=equalizer(target, config.equalizer),
        cross_alpha=cross_windows(num_steps, len(target.ids), (0.0, config.tau_c), exceptions),
        blend_tokens=_blend_tokens(source, target, config, target_word),
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
    """Marks of the blend words; by default those that change."""
    changes = changed_words(words_of(source.prompt), words_of(target.prompt))
    new = config.target_words
    if new is None and target_word is not None:
        new = (target_word,)
    marks = torch.zeros(2, len(source.ids))
    rows = zip((source, target), (config.source_words, new), changes, strict=True)
    for mark, (tokens, words, changed) in zip(marks, rows, strict=True):
        if words is None:  # D7
            positions = word_positions(tokens)
            mark[[n for place in changed for n in positions[place]]] = 1
        else:
            mark[[n for word in words for n in find_words(tokens, word)]] = 1
    if config.local_blend and not marks.any():
        raise InvalidPromptError(
            f"nothing changes from {source.prompt!r} to {target.prompt!r}, so the local blend has "
            "no word to follow: change a word, name source_words or set local_blend to false"
        )
    return marks
