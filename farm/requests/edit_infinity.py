"""Requests of EditInfinity."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from farm.requests.base import BaseRequest, Strict

Iterations = Annotated[int, Field(ge=1, le=1000)]


class EditInfinityParameters(Strict):
    """What a user may set; what is left out is the model set's default.

    Switches have the names and meanings of the released examples; their 0 and 1 are taken as false
    and true.
    """

    train_textembedding: bool | None = None
    """Whether the learned prompt is trained; otherwise one that exists is used."""
    train_textembedding_iter: Iterations | None = None
    """Iterations of that training."""
    use_textembedding: bool | None = None
    """Whether adapters are trained under the learned prompt."""
    use_textembedding_iter: Iterations | None = None
    """Which iteration of the learned prompt they are trained under; left out: the last."""
    train_lora: bool | None = None
    """Whether adapters are trained; otherwise ones that exist are used."""
    train_lora_iter: Iterations | None = None
    """Iterations of that training."""
    use_concat_embedding: bool | None = None
    """Whether the learned prompt follows the target prompt."""
    use_embedding_iter: Iterations | None = None
    """Which iteration of it; left out: the last."""
    use_lora: bool | None = None
    """Whether the edit uses the adapters."""
    use_lora_iter: Iterations | None = None
    """Which iteration of them; left out: the last."""
    infer_function: Literal[0, 1, 2] | None = None
    """0 edits the whole picture, 1 gives the target word's attention map and the source back, 2
    edits and keeps what is outside the mask, given or found; left out: 2 where there is a mask or a
    target word, else 0."""
    occurrence: Annotated[int, Field(ge=1, le=100)] | None = None
    """Which occurrence of the target word in the source prompt; left out: the first."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Where an attention map becomes a mask: share of the way from its minimum to its maximum."""
    large_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """The same where the mask would be large, as of a background."""
    grow: Annotated[float, Field(ge=0, le=4)] | None = None
    """Latent cells by which a mask from attention grows on all sides, unless it is large."""
    kernel: Literal["released", "paper"] | None = None
    """How much of the source stays near the mask: as the program does it, or the paper."""
    guidance: Annotated[float, Field(ge=1, le=30)] | None = None
    """How strongly the words are followed; 1 is without guidance."""
    tau: Annotated[float, Field(gt=0, le=10)] | None = None
    """Temperature of the draws."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """1 takes the likelier value of each bit; anything else changes nothing."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """A bit's value is not drawn if its probability is at most 1 - top_p."""
    cfg_insertion: Annotated[int, Field(ge=-100, le=0)] | None = None
    """Where guidance mixes: 0 logits, -m the m-th block from the end."""
    negative_prompt: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """What guidance leads away from; left out: nothing in particular."""
    source_noise: bool | None = None
    """Draw with the noise that gives the source under the source prompt: what the words leave as it
    was stays more as it was, and drawings differ less from each other."""
    candidates: Annotated[int, Field(ge=1, le=64)] | None = None
    """Drawings of the target, of which CLIP chooses the one that follows the words best and is
    built most like the source."""
    structure_weight: Annotated[float, Field(ge=0, le=100)] | None = None
    """How much the second counts in that choice; 0 where things may move and change their form."""
    prompt_rows: Annotated[int, Field(ge=1, le=100)] | None = None
    """Rows of the learned prompt."""
    lora_r: Annotated[int, Field(ge=1, le=64)] | None = None
    """Rank of the adapters."""
    lora_alpha: Annotated[float, Field(gt=0, le=1024)] | None = None
    """Their scale, times the rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the adapters' inputs that is dropped in training."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of both trainings."""
    paste_back: bool | None = None
    """Keep the original's own pixels where nothing was to change."""
    paste_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """And where the picture changed by no more than this, of 1."""
    attention_bias: bool | None = None
    """Keep the attention biases, which the released program drops."""
    save_every: Iterations | None = None
    """Iterations between those that can be used later; the last always can."""
    reference: bool = False
    """Reproduce the released program's arithmetic, quirks included."""


class EditInfinityRequest(BaseRequest):
    """Learn the picture's bits as a prompt and adapters of an Infinity model, then redraw a region.

    `target_word` is here a word, or words in a row, of the *source* prompt: what is to change. Its
    attention says where, unless a mask does.
    """

    method: Literal["edit_infinity"] = "edit_infinity"
    mask: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A picture of the image's size that says where to edit: a path or URI, like `image`."""
    mask_edits: Literal["white", "black"] = "white"
    """Which colour of the mask is edited; the released examples paint it black."""
    parameters: EditInfinityParameters = EditInfinityParameters()

    @property
    def drawn_mask(self) -> str | None:
        return self.mask

    @model_validator(mode="after")
    def _region_is_there(self) -> "EditInfinityRequest":
        function = self.parameters.infer_function
        if function == 1 and self.target_word is None:
            raise ValueError(
                "infer_function 1 gives a word's attention map, and there is no target_word: name "
                "a word of the source prompt"
            )
        if function == 2 and self.target_word is None and self.mask is None:
            raise ValueError(
                "infer_function 2 keeps what is outside a region, and there is neither a mask nor "
                "a target_word: give one of them, or set infer_function to 0"
            )
        return self
