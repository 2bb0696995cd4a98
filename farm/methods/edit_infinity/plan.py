"""What a request says about an edit, checked before any network runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from farm.errors import InvalidPromptError, InvalidRequestError
from farm.methods.edit_infinity.config import EditInfinityConfig
from farm.methods.edit_infinity.needs import Model, Tokenizer, Tokens
from farm.methods.edit_infinity.snapshots import check_iteration
from farm.methods.edit_infinity.words import find_word

CODES, PROMPT, LORA, ATTENTION = "codes", "prompt", "lora", "attention"
"""Stages, in the order in which they are needed."""

Region = Literal["whole", "attention", "mask", "word"]
"""What may change: everything, nothing (the map is asked for), a mask's region, a word's."""


@dataclass(frozen=True)
class EditPlan:
    """What is to be done.

    Attributes:
        region: where to edit.
        source: the source prompt alone; the attention map is its.
        training: the source prompt as the learned prompt is trained with: the instruction follows.
        target: the target prompt; the instruction follows where the learned rows will.
        negative: what guidance leads away from.
        span: tokens of the target word in `source`; empty where none is needed.
        makes: stages that the edit needs or is told to make, in order.
    """

    region: Region
    source: Tokens
    training: Tokens
    target: Tokens
    negative: Tokens | None
    span: tuple[int, ...]
    makes: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What a request says about words and places."""

    source_prompt: str
    target_prompt: str
    target_word: str | None = None
    has_mask: bool = False


def plan_edit(
    wish: Wish, tokenizer: Tokenizer, model: Model, config: EditInfinityConfig
) -> EditPlan:
    """Everything about an edit that follows from the request alone; cheap, so it is checked early.

    Args:
        wish: what is asked.
        tokenizer: of the text encoder.
        model: sizes.
        config: switches.

    Raises:
        UnknownWordError: the target word is not in the source prompt, or not so often.
        InvalidPromptError: a text and the learned rows are more than the model takes.
        InvalidRequestError: switches contradict each other.
    """
    check_switches(config)
    region = region_of(wish, config)
    rows = config.prompt.prompt_rows
    instruction = config.prompt.instruction
    concat = config.editing.use_concat_embedding
    source = _fitting(tokenizer, wish.source_prompt, 0, model)
    negative = config.editing.negative_prompt
    span: tuple[int, ...] = ()
    if region in ("attention", "word"):
        assert wish.target_word is not None
        occurrence = config.editing.occurrence
        last = config.last_occurrence
        span = tuple(find_word(source, wish.target_word, occurrence, last=last))
    return EditPlan(
        region=region,
        source=source,
        training=_fitting(tokenizer, wish.source_prompt + instruction, rows, model),
        target=_fitting(tokenizer, wish.target_prompt + instruction * concat, rows * concat, model),
        negative=None if negative is None else _fitting(tokenizer, negative, 0, model),
        span=span,
        makes=_makes(region, config),
    )


def region_of(wish: Wish, config: EditInfinityConfig) -> Region:
    """Which of the cases a request is.

    Raises:
        InvalidRequestError: what it needs is not there.
    """
    function = config.editing.infer_function
    if function == 0:
        return "whole"
    if function == 1:
        if wish.target_word is None:
            raise InvalidRequestError(
                "infer_function is 1, and there is no target_word whose attention to show: name a "
                "word of the source prompt"
            )
        return "attention"
    if wish.has_mask:  # D10
        return "mask"
    if wish.target_word is not None:
        return "word"
    if function == 2:
        raise InvalidRequestError(
            "infer_function is 2, and there is neither a mask nor a target_word: give one of them, "
            "or set infer_function to 0"
        )
    return "whole"


def check_switches(config: EditInfinityConfig) -> None:
    """Whether every iteration that is to be used is one that is trained here.

    Those of trainings that are switched off are checked against what is in the store, later.

    Raises:
        InvalidRequestError: naming the switch, and the iterations that exist.
    """
    prompt, lora, editing = config.prompt, config.lora, config.editing
    if prompt.train_textembedding:
        existing = config.saved(prompt.train_textembedding_iter)
        uses = {
            "use_textembedding_iter": lora.use_textembedding_iter
            if lora.use_textembedding
            else None,
            "use_embedding_iter": editing.use_embedding_iter
            if editing.use_concat_embedding
            else None,
        }
        for switch, wanted in uses.items():
            check_iteration(wanted, existing, switch, "the learned prompt")
    if lora.train_lora and editing.use_lora:
        existing = config.saved(lora.train_lora_iter)
        check_iteration(editing.use_lora_iter, existing, "use_lora_iter", "the adapters")


def must_exist(plan: EditPlan, config: EditInfinityConfig) -> tuple[str, ...]:
    """Stages that the edit needs and must not make: their training is switched off."""
    switched_on = {
        PROMPT: config.prompt.train_textembedding,
        LORA: config.lora.train_lora,
    }
    return tuple(name for name in plan.makes if not switched_on.get(name, True))


def with_iterations(config: EditInfinityConfig, stage: str, iterations: int) -> EditInfinityConfig:
    """The configuration with another length of a training, `PROMPT`'s or `LORA`'s."""
    if stage == PROMPT:
        update = {"train_textembedding_iter": iterations}
        return config.model_copy(update={"prompt": config.prompt.model_copy(update=update)})
    update = {"train_lora_iter": iterations}
    return config.model_copy(update={"lora": config.lora.model_copy(update=update)})


def missing_stage(stage: str, existing: Mapping[int, bool], config: EditInfinityConfig) -> str:
    """What to tell a user whose edit needs a training that is switched off and was never done.

    Args:
        stage: `PROMPT` or `LORA`.
        existing: for numbers of iterations, whether a training of so many is in the store.
        config: switches.
    """
    there = ", ".join(str(n) for n, found in sorted(existing.items()) if found) or "none"
    switch, asked = {
        PROMPT: ("train_textembedding", config.prompt.train_textembedding_iter),
        LORA: ("train_lora", config.lora.train_lora_iter),
    }[stage]
    return (
        f"{switch} is off and {switch}_iter {asked}, but no training of so many iterations of this "
        f"image and prompt exists; there are: {there}. Set {switch} to true, or {switch}_iter to "
        "one that exists"
    )


def stage_depends(plan: EditPlan, config: EditInfinityConfig) -> dict[str, dict[str, Any]]:
    """What each stage depends on besides the picture, the seed, the weights and those before it.

    Whether a training is switched on is not among it: one that exists is the same training.
    """
    model = {"attention_bias": config.attention_bias}
    training = {"save_every": config.save_every, "off_by_one": config.off_by_one}
    prompt = config.prompt.model_dump(mode="json", exclude={"train_textembedding"})
    lora = config.lora.model_dump(mode="json", exclude={"train_lora"})
    depends = {
        CODES: {},
        PROMPT: {"text": plan.training.prompt, "config": prompt, **training, **model},
        LORA: {
            "text": (plan.training if config.lora.use_textembedding else plan.source).prompt,
            "config": lora,
            **training,
            **model,
        },
        ATTENTION: {"text": plan.source.prompt, "span": list(plan.span), **model},
    }
    return {name: depends[name] for name in plan.makes}


def edit_depends(plan: EditPlan, config: EditInfinityConfig) -> dict[str, Any]:
    """What the edit depends on besides its stages, a mask's bytes and the seed."""
    return {
        "target": plan.target.prompt,
        "region": plan.region,
        "config": config.editing.model_dump(mode="json"),
        "attention_bias": config.attention_bias,
    }


def _makes(region: Region, config: EditInfinityConfig) -> tuple[str, ...]:
    lora = config.lora.train_lora or config.editing.use_lora
    under = lora and config.lora.use_textembedding
    prompt = config.prompt.train_textembedding or config.editing.use_concat_embedding or under
    needed = {
        CODES: True,
        PROMPT: prompt and region != "attention",
        LORA: lora and region != "attention",
        ATTENTION: region in ("attention", "word"),
    }
    return tuple(name for name, is_needed in needed.items() if is_needed)


def _fitting(tokenizer: Tokenizer, text: str, rows: int, model: Model) -> Tokens:
    tokens = tokenizer.encode(text)  # whole, D12
    found, most = len(tokens.ids), model.text_rows
    if found + rows > most:
        raise InvalidPromptError(
            f"{text!r} has {found} tokens and {rows} learned rows follow, {found + rows} in all, "
            f"and the model takes {most}: shorten the prompt by {found + rows - most} tokens"
        )
    return tokens
