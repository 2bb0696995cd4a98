"""CLIP score: how well a picture agrees with a text."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

Tokenize = Callable[[Sequence[str]], Tensor]
"""Texts to padded token ids (texts, tokens), cut to the model's length."""


class ClipScorer(nn.Module):
    """100 · cosine of a picture's and a text's embedding, at least 0.

    Pictures go through the library's Pillow preprocessing (bicubic to the model's size, centre
    crop), as the benchmark's did, so the score has no gradient.

    Args:
        model: taken over: frozen, in eval mode.
        tokenize: texts to its token ids.
        processor: pixels to its input.
        name: what results say they were measured with.
    """

    def __init__(
        self, model: CLIPModel, tokenize: Tokenize, processor: CLIPImageProcessorPil, *, name: str
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.name = name
        self._tokenize, self._processor = tokenize, processor

    def forward(
        self, image: Float[Tensor, "batch 3 height width"], texts: Sequence[str]
    ) -> Float[Tensor, " batch"]:
        """Score of each picture with its own text; pictures in [0, 1] become 256 levels first."""
        with torch.no_grad():
            pictures = self._embed_image(_levels(image))
            words = self._embed_text(self._tokenize(texts))
        return 100 * F.cosine_similarity(pictures, words).clamp_min(0).double()

    def _embed_image(
        self, pixels: UInt8[np.ndarray, "batch height width 3"]
    ) -> Float[Tensor, "batch embed"]:
        given = self._processor(list(pixels), return_tensors="pt")["pixel_values"]
        device = self.model.visual_projection.weight.device
        output = self.model.vision_model(pixel_values=given.to(device))
        return self.model.visual_projection(output.pooler_output)

    def _embed_text(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch embed"]:
        device = self.model.text_projection.weight.device
        output = self.model.text_model(input_ids=ids.to(device))
        return self.model.text_projection(output.pooler_output)


def folder_tokenizer(folder: Path, model: CLIPModel) -> Tokenize:
    """The tokenizer of a Hugging Face folder; longer texts are cut to the model's length."""
    max_tokens = model.text_model.config.max_position_embeddings
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def tokenize(texts: Sequence[str]) -> Int[Tensor, "texts tokens"]:
        return tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=max_tokens,
            return_tensors="pt",
        )["input_ids"]

    return tokenize


def _levels(
    image: Float[Tensor, "batch 3 height width"],
) -> UInt8[np.ndarray, "batch height width 3"]:
    levels = (image.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().numpy()
