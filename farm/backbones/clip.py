"""CLIP's towers, frozen: tokens to embeddings and pictures in [0, 1] to all image tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPVisionModel

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class TextEncoder(nn.Module):
    """Padded token ids to the last hidden state, after the final norm."""

    def __init__(self, tower: CLIPTextModel) -> None:
        super().__init__()
        self.tower = tower.requires_grad_(False).eval()

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens embed"]:
        return self.tower(input_ids=ids).last_hidden_state


class ImageEncoder(nn.Module):
    """StyleDiffusion's E: all tokens after the last norm, unprojected (spec §3).

    Owns its resizing and its mean and std, so no caller ever normalises an image, or does it twice.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tower: CLIPVisionModel) -> None:
        super().__init__()
        self.tower = tower.requires_grad_(False).eval()
        assert isinstance(tower.config.image_size, int), "CLIP takes square pictures"
        self._size = tower.config.image_size
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch image_tokens embed"]:
        states = self.tower(pixel_values=self.pixels(image)).last_hidden_state
        return self.tower.post_layernorm(states)

    def pixels(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """Input of the tower: bicubic without antialiasing, as the released code's library did."""
        size = (self._size, self._size)
        if image.shape[-2:] != size:
            image = F.interpolate(image, size, mode="bicubic", align_corners=False)
        return (image - self.mean) / self.std
