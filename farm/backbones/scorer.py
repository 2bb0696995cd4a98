"""CLIP as a judge of pictures against words, frozen: embeddings, tokens, and what they rest on."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPModel

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageFeatures:
    """What the image tower says of pictures.

    Attributes:
        embeds: in the space shared with texts; not of unit length.
        before_last: tokens, class token first, that enter the last layer.
        last: tokens that leave it, before the final norm.
    """

    embeds: Float[Tensor, "batch embed"]
    before_last: Float[Tensor, "batch places width"]
    last: Float[Tensor, "batch places width"]


class Scorer(nn.Module):
    """Both towers of a CLIP with their projections.

    Args:
        clip: taken over: frozen and in eval mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip.requires_grad_(False).eval()
        embeddings = clip.vision_model.embeddings
        self.size = int(embeddings.image_size)  # pyright: ignore[reportArgumentType]
        self.grid = math.isqrt(embeddings.num_patches)
        self.embed_width = clip.visual_projection.out_features
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def embed_text(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch embed"]:
        """Projected embeddings of padded token ids; not of unit length."""
        pooled = self.clip.text_model(input_ids=ids).pooler_output
        return self.clip.text_projection(pooled)

    def resized(
        self, image: Float[Tensor, "batch 3 height width"], *, antialias: bool = True
    ) -> Float[Tensor, "batch 3 size size"]:
        """Pictures of the tower's size (bilinear); any other ratio of sides is lost."""
        if image.shape[-2:] == (self.size, self.size):
            return image
        return F.interpolate(image, (self.size, self.size), mode="bilinear", antialias=antialias)

    def forward(self, image: Float[Tensor, "batch 3 size size"]) -> ImageFeatures:
        """Features of pictures in [0, 1] of the tower's size."""
        vision = self.clip.vision_model
        tokens = self._embedded(image)
        *layers, last = vision.encoder.layers
        for layer in layers:
            tokens = layer(tokens, None)
        after = last(tokens, None)
        return ImageFeatures(self._projected(after), tokens, after)

    def relevance(
        self,
        image: Float[Tensor, "batch 3 size size"],
        direction: Float[Tensor, "batch embed"],
    ) -> Float[Tensor, "batch grid grid"]:
        """How much each patch makes the picture's embedding point along `direction`; at least 0.

        Chefer et al. (arXiv:2103.15679), §3: over layers R ← R + mean over heads of
        (∇A ⊙ A)⁺ R, with A the attention and ∇A the gradient of the cosine; the row of [CLS].
        """
        with torch.enable_grad():
            maps: list[Tensor] = []
            # the weights are frozen: without this no graph would begin
            tokens = self._embedded(image).requires_grad_()
            for layer in self.clip.vision_model.encoder.layers:
                tokens, attention = _open_layer(layer, tokens)
                maps.append(attention)
            cosine = F.cosine_similarity(self._projected(tokens), direction, dim=-1)
            gradients = torch.autograd.grad(cosine.sum(), maps)
        relevance = torch.eye(maps[0].shape[-1], device=image.device).expand(len(image), -1, -1)
        for attention, gradient in zip(maps, gradients, strict=True):
            step = (gradient * attention.detach()).clamp(min=0).mean(dim=1)
            relevance = relevance + step @ relevance
        return relevance[:, 0, 1:].unflatten(-1, (self.grid, self.grid))

    def _embedded(
        self, image: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch places width"]:
        vision = self.clip.vision_model
        return vision.pre_layrnorm(vision.embeddings((image - self.mean) / self.std))

    def _projected(
        self, tokens: Float[Tensor, "batch places width"]
    ) -> Float[Tensor, "batch embed"]:
        pooled = self.clip.vision_model.post_layernorm(tokens[:, 0])
        return self.clip.visual_projection(pooled)


def _open_layer(
    layer: Any, tokens: Float[Tensor, "batch places width"]
) -> tuple[Float[Tensor, "batch places width"], Float[Tensor, "batch heads places places"]]:
    """A layer of the tower with its attention probabilities as a node of the graph."""
    attention = layer.self_attn
    normed = layer.layer_norm1(tokens)
    query, key, value = (
        project(normed).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    maps = ((query @ key.transpose(-2, -1)) * attention.scale).softmax(dim=-1)
    mixed = (maps @ value).transpose(1, 2).flatten(2)
    tokens = tokens + attention.out_proj(mixed)
    return tokens + layer.mlp(layer.layer_norm2(tokens)), maps
