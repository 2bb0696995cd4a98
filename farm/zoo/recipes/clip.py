"""CLIP of the scenes world: its text tower conditions the diffusion model, its image tower is E.

Contrastive with hard negatives in the batch: each scene comes with copies that differ in one
attribute, so that the towers must read shape, colour, pattern, background and what belongs to
which object.
"""

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from farm.backbones.tokenizer import PromptTokenizer
from farm.zoo.scenes.captions import caption, varied_caption
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, concatenate, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, DEFAULT_TYPES, PATTERNS, SHAPES
from farm.zoo.weights import SCENES_FOLDER

TOKENS = 32
WIDTH = 96
_GROUP = 6
_MAX_SCALE = 4.6


def scenes_tokenizer() -> PromptTokenizer:
    return PromptTokenizer(SCENES_FOLDER / "tokenizer", TOKENS)


def token_batch(tokenizer: PromptTokenizer, captions: list[str]) -> Int[Tensor, "captions tokens"]:
    return torch.tensor([tokenizer.encode(c).ids for c in captions])


def build_clip() -> CLIPModel:
    """Two text layers, four image layers, both 96 wide (StyleDiffusion needs them equal)."""
    start, end = scenes_tokenizer().encode("").ids[:2]
    config = CLIPConfig(
        text_config={
            "vocab_size": 325,
            "hidden_size": WIDTH,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": TOKENS,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": end,
            "projection_dim": WIDTH,
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 8,
            "projection_dim": WIDTH,
        },
        projection_dim=WIDTH,
    )
    return CLIPModel(config)


def with_hard_negatives(scenes: Scenes, generator: torch.Generator) -> Scenes:
    """Each scene and five copies: two other shapes, a colour, a pattern, a background.

    In scenes of two objects the second shape copy swaps the two colours instead, so that knowing
    which words are there is not enough: they must be bound to their object.
    """
    count = len(scenes)
    slot = (torch.rand(count, generator=generator) * scenes.count).long()
    rows = torch.arange(count)

    def other(current: Tensor, number: int) -> Tensor:
        return (current + torch.randint(1, number, (count,), generator=generator)) % number

    def changed(name: str, number: int) -> Scenes:
        return scenes.with_slot(name, slot, other(getattr(scenes, name)[rows, slot], number))

    reshaped = changed("shape", len(SHAPES))
    swapped = torch.where(scenes.count[:, None] == 2, scenes.colour.flip(1), scenes.colour)
    again = changed("shape", len(SHAPES))
    second = replace(
        scenes,
        colour=swapped,
        shape=torch.where(scenes.count[:, None] == 2, scenes.shape, again.shape),
    )
    background = replace(scenes, background=other(scenes.background, len(BACKGROUNDS)))
    return concatenate(
        [
            scenes,
            reshaped,
            second,
            changed("colour", len(COLOUR_NAMES)),
            changed("pattern", len(PATTERNS)),
            background,
        ]
    )


def _continued(folder: Path) -> CLIPModel:
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind == "clip":
        return CLIPModel.from_pretrained(folder).float()
    model = build_clip()
    tower = CLIPTextModel.from_pretrained(folder).float()
    state = {k.removeprefix("text_model."): v for k, v in tower.state_dict().items()}
    model.text_model.load_state_dict(state)
    return model


@dataclass(frozen=True)
class ClipRecipe:
    start_from: Path | None = None
    """A folder to continue from: of a whole CLIP, or of a text tower alone."""
    freeze_text: bool = False
    """Keep the text tower as it is (but for its projection), since the UNets are trained on it."""
    name: str = "clip"

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            model = build_clip() if self.start_from is None else _continued(self.start_from)
        model.set_attn_implementation("eager")  # on CPU its backward is twice as fast as sdpa's
        if self.freeze_text:
            model.text_model.requires_grad_(False)
        return model

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        base = sample_scenes(batch_size // _GROUP, generator, split="train", two_share=0.4)
        scenes = with_hard_negatives(base, generator)
        images = render(scenes).images
        images = images + 0.02 * torch.randn(images.shape, generator=generator)
        words = random.Random(int(torch.randint(2**31, (1,), generator=generator)))  # noqa: S311
        texts = [varied_caption(scenes, i, words)[0] for i in range(len(scenes))]
        ids = token_batch(scenes_tokenizer(), texts)
        image, text, scale = _embed(module, images, ids)
        logits = image @ text.T * scale
        answers = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, answers) + F.cross_entropy(logits.T, answers)) / 2
        return loss, {"accuracy": (logits.argmax(1) == answers).float().mean().item()}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Retrieval of 256, and whether the edited caption is preferred on the edited picture."""
        scenes = sample_scenes(256, generator_for("heldout", 71), split="heldout")
        ids = token_batch(scenes_tokenizer(), [caption(scenes, i) for i in range(256)])
        image, text, _ = _embed(module, render(scenes).images, ids)
        best = image @ text.T
        answers = torch.arange(256)
        figures = {
            "image_to_text": (best.argmax(1) == answers).float().mean().item(),
            "text_to_image": (best.argmax(0) == answers).float().mean().item(),
        }
        for kind in DEFAULT_TYPES:
            edits = sample_edits(128, 72, (kind,))
            truths = [edit_truth(e) for e in edits]
            after = torch.cat([t.target.images for t in truths])
            before = torch.cat([t.source.images for t in truths])
            ids = token_batch(scenes_tokenizer(), [e.target_prompt for e in edits])
            new, words, _ = _embed(module, after, ids)
            old, _, _ = _embed(module, before, ids)
            figures[f"prefers_{kind}"] = (
                ((new * words).sum(1) > (old * words).sum(1)).float().mean().item()
            )
        return figures

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, CLIPModel)
        module.half().save_pretrained(folder / self.name)

    def load(self, folder: Path) -> nn.Module:
        return CLIPModel.from_pretrained(folder / self.name).float().eval()


IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


def _embed(module: nn.Module, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit-norm embeddings of pictures in [0, 1] and of token ids, and the logit scale."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    out = module(input_ids=ids, pixel_values=(images - mean) / std)
    clip = getattr(module, "module", module)  # under data parallelism
    scale = clip.get_parameter("logit_scale").clamp(max=_MAX_SCALE).exp()
    return (
        F.normalize(out.image_embeds.float(), dim=-1),
        F.normalize(out.text_embeds.float(), dim=-1),
        scale,
    )
