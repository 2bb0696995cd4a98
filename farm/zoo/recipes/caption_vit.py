"""A ViT trained from captions, which stands in for DINO on the scenes: never masks, never boxes.

[CLS] must say which nouns, which adjectives and which pairs of them the caption names, so it has to
look at the objects. It is not DINO: docs/zoo.md says what self-distillation reached instead.
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from farm.zoo.recipes.vit import (
    attention_figures,
    build_vit,
    cls_attention,
    load_vit,
    normalised,
    plain_attention,
    save_vit,
)
from farm.zoo.scenes.captions import varied_caption
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import COLOUR_NAMES, PATTERNS, SHAPES

WORDS = (*SHAPES, *COLOUR_NAMES, *(p for p in PATTERNS if p != "plain"))
PAIRS = tuple((colour, shape) for colour in COLOUR_NAMES for shape in SHAPES)
_HIDDEN_PATCHES = 0.85
"""With all patches there, one of an object's is enough, and the attention shrinks to it."""
_WORD = re.compile(r"[a-z]+")


def caption_labels(text: str) -> Float[Tensor, " labels"]:
    """1 for each of `WORDS` in a caption, then for each of `PAIRS` of a noun and its colour."""
    words = _WORD.findall(text.lower())
    pairs: set[tuple[str, str]] = set()
    colour = None
    for word in words:
        if word in COLOUR_NAMES:
            colour = word
        elif word in SHAPES and colour is not None:
            pairs.add((colour, word))
            colour = None
    found = [w in words for w in WORDS] + [p in pairs for p in PAIRS]
    return torch.tensor(found, dtype=torch.float32)


class CaptionReader(nn.Module):
    """The ViT and one logit a label from its [CLS] token."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = plain_attention(build_vit(_HIDDEN_PATCHES))
        self.labels = nn.Linear(self.vit.embed_dim, len(WORDS) + len(PAIRS))

    def forward(self, images: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch labels"]:
        """Logits."""
        logits: Tensor = self.labels(self.vit(normalised(images)))
        return logits


@dataclass(frozen=True)
class CaptionVitRecipe:
    start_from: Path | None = None
    """A folder of an exported ViT to continue from."""
    name: str = "caption_vit"

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            module = CaptionReader()
        if self.start_from is not None:
            module.vit.load_state_dict(load_vit(self.start_from).state_dict())
        return module

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        scenes = sample_scenes(batch_size, generator, split="train", two_share=0.4)
        images = render(scenes).images
        images = images + 0.02 * torch.randn(images.shape, generator=generator)
        words = random.Random(int(torch.randint(2**31, (1,), generator=generator)))  # noqa: S311
        texts = [varied_caption(scenes, i, words)[0] for i in range(batch_size)]
        labels = torch.stack([caption_labels(text) for text in texts])
        logits = module(images).float()
        singles, pairs = len(WORDS), len(PAIRS)
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        loss = each[:, :singles].sum(1).mean() + each[:, singles:].sum(1).mean()
        right = (logits[:, :singles] > 0) == (labels[:, :singles] > 0.5)
        bound = logits[:, -pairs:].argmax(1, keepdim=True)
        figures = {
            "words": right.float().mean().item(),
            "pair": labels[:, -pairs:].gather(1, bound).mean().item(),
        }
        return loss, figures

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """How well [CLS] attention finds the objects of held-out scenes."""
        assert isinstance(module, CaptionReader | VisionTransformer)
        vit = module.vit if isinstance(module, CaptionReader) else module
        scenes = sample_scenes(256, generator_for("heldout", 81), split="heldout", two_share=1 / 3)
        drawn = render(scenes)
        truth = drawn.masks.amax(1) > 0.5
        return attention_figures(cls_attention(vit, drawn.images).mean(1), truth)

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, CaptionReader)
        save_vit(module.vit, folder / self.name)

    def load(self, folder: Path) -> nn.Module:
        return load_vit(folder / self.name).eval()
