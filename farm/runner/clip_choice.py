"""CLIP behind an executor as the chooser among drawings of one edit."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from farm.errors import InvalidPromptError, InvalidRequestError
from farm.images import fit_to_model
from farm.masks import Box
from farm.methods.edit_infinity.choosing import Choice, Looks, choose, part_around
from farm.regions import RegionsClient
from farm.zoo.model_sets import ModelSet

PARTS = ("clip", "scorer")
"""Folders of a model set whose weights a choice depends on."""

Image = Float[Tensor, "3 height width"]


@dataclass(frozen=True)
class ClipChooser:
    """Asks CLIP about whole pictures and about the part around what was to change.

    Attributes:
        client: the frozen networks.
        prompts: token ids of the source prompt and of the target prompt.
        structure_weight: see `choosing.choose`.
    """

    client: RegionsClient
    prompts: tuple[Sequence[int], Sequence[int]]
    structure_weight: float

    def choose(
        self,
        source: Image,
        drawings: Sequence[Image],
        inside: Bool[Tensor, "fine_height fine_width"],
    ) -> Choice:
        """See `choosing.choose`; two forwards of CLIP for each picture, one for each prompt."""
        box = part_around(inside, *source.shape[-2:])
        looks = [look for picture in (source, *drawings) for look in self._looks(picture, box)]
        seen = self.client.score_images(looks)
        embeds = torch.stack([look.embed for look in seen]).unflatten(0, (-1, 2))
        tokens = torch.stack([look.tokens for look in seen]).unflatten(0, (-1, 2))
        was, drawn = Looks(embeds[0], tokens[0]), Looks(embeds[1:], tokens[1:])
        texts = (self.client.score_text(self.prompts[0]), self.client.score_text(self.prompts[1]))
        return choose(drawn, was, texts, self.structure_weight)

    def _looks(self, picture: Image, box: Box) -> tuple[Image, Image]:
        """The square in the middle, and the part around the region."""
        size = self.client.spec.image_size
        part = picture[:, box.top : box.bottom, box.left : box.right]
        return fit_to_model(picture, size)[0], fit_to_model(part, size)[0]


def chooser_prompts(
    source_prompt: str, target_prompt: str, model_set: ModelSet
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Both prompts as CLIP reads them.

    Raises:
        InvalidRequestError: the model set has no CLIP, or a prompt is too long for it.
    """
    if model_set.spec.regions is None:
        raise InvalidRequestError(
            f"candidates is more than 1, and model set {model_set.name} has no CLIP to choose with "
            "(it comes with the networks of learnable_regions): set candidates to 1"
        )
    encode = model_set.tokenizer.encode
    try:
        return tuple(encode(source_prompt).ids), tuple(encode(target_prompt).ids)
    except InvalidPromptError as error:
        raise InvalidPromptError(
            f"{error.message}; it is CLIP, which chooses among candidates, that takes no more: "
            "set candidates to 1 for longer prompts"
        ) from error
