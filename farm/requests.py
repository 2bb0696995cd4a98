"""`EditRequest`: the one contract that manifests, the command line and HTTP share."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from farm.errors import InvalidRequestError

Tau = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(min_length=1, max_length=80)]
Prompt = Annotated[str, Field(min_length=1, max_length=2000)]

_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)  # a typo is an error, not a default


class StyleDiffusionParameters(_Strict):
    """What a user may set; what is left out is the model set's default."""

    num_steps: Annotated[int, Field(ge=2, le=200)] | None = None
    """Timesteps T of inversion and editing."""
    guidance_scale: Annotated[float, Field(ge=1, le=30)] | None = None
    inner_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Optimiser steps at the noisiest timestep; the budget decays from there."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    attention_weight: Annotated[float, Field(ge=0, le=100)] | None = None
    value_form: Literal["modulated", "direct"] | None = None
    """`c·s + b` as released, or the mapping network's output itself as in the paper."""
    tau_v: Tau | None = None
    """Share of steps in which the target row's values are the learned ones."""
    tau_c: Tau | None = None
    """Share of steps in which the target takes the source's cross-attention."""
    tau_s: Tau | None = None
    """Share of steps in which the target takes the source's self-attention."""
    tau_u: Tau | None = None
    """The same for the unconditional branch."""
    local_blend: bool | None = None
    """Keep what lies outside the words' attention."""
    blend_threshold: Tau | None = None
    blend_start: Tau | None = None
    paste_back: bool | None = None
    """With local blend: keep the original's own pixels where nothing was to change."""
    source_words: tuple[Word, ...] | None = None
    """Words of the source prompt that the blend follows; by default the words that change."""
    target_words: tuple[Word, ...] | None = None
    reference: bool = False
    """Reproduce the released code's arithmetic, quirks included."""


class _Request(_Strict):
    id: Annotated[str, Field(pattern=_ID_PATTERN)] | None = None
    """The user's own name of this edit, for reports; it does not influence the result."""
    image: Annotated[str, Field(min_length=1, max_length=1024)]
    """A file path, or the URI of an object in an allowed store."""
    source_prompt: Prompt
    target_prompt: Prompt
    target_word: Word | None = None
    """The word of the target prompt that says what is new."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model_set: Annotated[str, Field(min_length=1, max_length=256)] = "scenes"
    """A name, or a local folder."""
    priority: Literal["interactive", "batch"] = "batch"
    deterministic: bool = False
    """Compute each call alone, so that not even rounding depends on what else runs."""

    @model_validator(mode="after")
    def _something_to_edit(self) -> "_Request":
        for name in ("source_prompt", "target_prompt"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is blank: describe the picture in words")
        if self.source_prompt.split() == self.target_prompt.split():
            raise ValueError(
                f"source_prompt and target_prompt are both {self.target_prompt!r}, so there is "
                "nothing to edit: describe the picture as it is, then as it should be"
            )
        return self


class StyleDiffusionRequest(_Request):
    method: Literal["style_diffusion"] = "style_diffusion"
    parameters: StyleDiffusionParameters = StyleDiffusionParameters()


EditRequest = StyleDiffusionRequest
"""Discriminated by `method`; a union as soon as there is a second method."""

_ADAPTER: TypeAdapter[EditRequest] = TypeAdapter(EditRequest)


def parse_request(data: str | bytes | dict[str, Any]) -> EditRequest:
    """A request from JSON text or a mapping.

    Raises:
        InvalidRequestError: naming each wrong field, what was found and what is expected.
    """
    try:
        if not isinstance(data, dict):
            data = json.loads(data)
        return _ADAPTER.validate_python(data)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"not JSON ({error.msg} at column {error.colno}): one JSON object is expected"
        ) from error
    except ValidationError as error:
        raise InvalidRequestError(describe(error)) from error


def describe(error: ValidationError) -> str:
    """All complaints of pydantic in one line that a user can act on."""
    lines: list[str] = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"]) or "request"
        found = item.get("input")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f"{where}: no such field; remove it or mend its name")
        elif item["type"] in ("missing", "value_error"):
            lines.append(f"{where}: {message}")
        else:
            lines.append(f"{where}: {message}, found {found!r:.80}")
    return "; ".join(lines)
