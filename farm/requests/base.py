"""What every request has in common, whatever its method."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Tau = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(min_length=1, max_length=80)]
Prompt = Annotated[str, Field(min_length=1, max_length=2000)]

_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid",  # a typo is an error, not a default
        frozen=True,
        use_attribute_docstrings=True,  # what an option does is said once, here
    )


class BaseRequest(Strict):
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

    @property
    def is_generated(self) -> bool:
        """Whether the source is drawn by the model instead of read from an image."""
        return False

    @property
    def drawn_mask(self) -> str | None:
        """The mask that the user drew: a path or URI, like `image`; None where there is none."""
        return None

    @model_validator(mode="after")
    def _something_to_edit(self) -> "BaseRequest":
        for name in ("source_prompt", "target_prompt"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is blank: describe the picture in words")
        if self.source_prompt.split() == self.target_prompt.split():
            raise ValueError(
                f"source_prompt and target_prompt are both {self.target_prompt!r}, so there is "
                "nothing to edit: describe the picture as it is, then as it should be"
            )
        return self
