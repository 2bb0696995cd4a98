"""DINO ViT of the scenes world by self-distillation (arXiv:2104.14294): no labels, no masks.

A student sees global and local crops, its teacher (a moving average of the student) the global
ones; both must agree on a distribution over prototypes. What keeps it from collapsing is that the
teacher's answers are balanced over each batch (Sinkhorn-Knopp, arXiv:2006.09882, as in
arXiv:2304.07193) and that features of different pictures are pushed apart (KoLeo). All pictures of
a batch have the same kind of background: with mixed batches the easiest balanced answer is the
background, and the attention never looks at an object (docs/zoo.md has the figures).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from farm.zoo.recipes.crops import random_crops
from farm.zoo.recipes.vit import (
    attention_figures,
    build_vit,
    cls_attention,
    load_vit,
    normalised,
    plain_attention,
    save_vit,
)
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import BACKGROUNDS

_GLOBAL, _LOCAL = 48, 24
_LOCALS = 4
_PROTOTYPES = 256
_STUDENT_TEMPERATURE = 0.1
_TEACHER_TEMPERATURE = 0.06
_BALANCING_ROUNDS = 3
_KOLEO = 0.1
_HOLD_PROTOTYPES = 100
_MOMENTUM = (0.99, 0.9995)


class Prototypes(nn.Module):
    """DINO's head: an MLP to a unit-norm bottleneck, scored against unit-norm prototypes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 64)
        )
        self.prototypes = nn.Parameter(torch.randn(_PROTOTYPES, 64))

    def forward(
        self, features: Float[Tensor, "crops width"], hold: bool
    ) -> Float[Tensor, "crops prototypes"]:
        # held, it still gets a gradient (zero): data parallelism waits for every parameter's
        prototypes = self.prototypes.detach() + 0 * self.prototypes if hold else self.prototypes
        scored: Tensor = F.normalize(self.mlp(features), dim=-1) @ F.normalize(prototypes, dim=-1).T
        return scored


class SelfDistillation(nn.Module):
    """Student and teacher: all that a resumed training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = plain_attention(build_vit()), plain_attention(build_vit())
        self.head, self.teacher_head = Prototypes(96), Prototypes(96)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher_head.load_state_dict(self.head.state_dict())
        for module in (self.teacher, self.teacher_head):
            module.requires_grad_(False)

    def forward(
        self, views: list[Float[Tensor, "batch 3 _ _"]], hold: bool
    ) -> list[tuple[Float[Tensor, "batch width"], Float[Tensor, "batch prototypes"]]]:
        """The student's features and scores of each view."""
        features = [self.student(normalised(view)) for view in views]
        return [(f, self.head(f, hold)) for f in features]

    @torch.no_grad()
    def targets(
        self, views: list[Float[Tensor, "batch 3 _ _"]]
    ) -> list[Float[Tensor, "batch prototypes"]]:
        """The teacher's distributions, sharp, and balanced over all views of the batch."""
        scores = [self.teacher_head(self.teacher(normalised(v)), True).float() for v in views]
        return list(balanced(torch.cat(scores) / _TEACHER_TEMPERATURE).chunk(len(views)))

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the teacher towards the student."""
        for mine, theirs in (
            (self.teacher, self.student),
            (self.teacher_head, self.head),
        ):
            for target, source in zip(mine.parameters(), theirs.parameters(), strict=True):
                target.lerp_(source, 1 - momentum)


@dataclass(frozen=True)
class DinoRecipe:
    start_from: Path | None = None
    """A folder of an exported ViT that student and teacher begin with."""
    horizon: int = 6000
    """Steps over which the teacher's momentum rises to its end."""
    name: str = "dino"

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            module = SelfDistillation()
        if self.start_from is not None:
            start = load_vit(self.start_from).state_dict()
            module.student.load_state_dict(start)
            module.teacher.load_state_dict(start)
        return module

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        both = getattr(module, "module", module)  # under data parallelism
        assert isinstance(both, SelfDistillation)
        both.follow(_cosine(_MOMENTUM, step / self.horizon))
        images = render(_one_background(batch_size, generator)).images
        wide = [random_crops(images, _GLOBAL, (0.4, 1.0), generator) for _ in range(2)]
        near = [random_crops(images, _LOCAL, (0.15, 0.5), generator) for _ in range(_LOCALS)]
        targets = both.targets(wide)
        found = module(wide + near, step < _HOLD_PROTOTYPES)
        total, pairs = torch.zeros(()), 0
        for t, target in enumerate(targets):
            for s, (_, score) in enumerate(found):
                if s != t:
                    logs = F.log_softmax(score.float() / _STUDENT_TEMPERATURE, dim=-1)
                    total = total - (target * logs).sum(-1).mean()
                    pairs += 1
        agreement = total / pairs
        apart = torch.stack([koleo(features) for features, _ in found[:2]]).mean()
        figures = {"agreement": agreement.item(), "koleo": apart.item()}
        return agreement + _KOLEO * apart, figures

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """How well the teacher's [CLS] attention finds the objects of held-out scenes."""
        assert isinstance(module, SelfDistillation | VisionTransformer)
        vit = module.teacher if isinstance(module, SelfDistillation) else module
        scenes = sample_scenes(256, generator_for("heldout", 81), split="heldout", two_share=1 / 3)
        drawn = render(scenes)
        truth = drawn.masks.amax(1) > 0.5
        maps = cls_attention(vit, drawn.images).mean(1)
        return attention_figures(maps, truth)

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, SelfDistillation)
        save_vit(module.teacher, folder / self.name)

    def load(self, folder: Path) -> nn.Module:
        return load_vit(folder / self.name).eval()


def balanced(logits: Float[Tensor, "items prototypes"]) -> Float[Tensor, "items prototypes"]:
    """Distributions of which every prototype gets an equal share (Sinkhorn-Knopp)."""
    mass = (logits - logits.max()).exp().double()
    for _ in range(_BALANCING_ROUNDS):
        mass = mass / mass.sum(0, keepdim=True).clamp(min=1e-12)
        mass = mass / mass.sum(1, keepdim=True).clamp(min=1e-12)
    return mass.float()


def koleo(features: Float[Tensor, "items width"]) -> Float[Tensor, ""]:
    """Minus the mean log distance to the nearest neighbour, of unit-norm features."""
    unit = F.normalize(features.float(), dim=-1)
    with torch.no_grad():
        alike = unit @ unit.T
        alike.fill_diagonal_(-2.0)
        nearest = alike.argmax(1)
    distance = (unit - unit[nearest] + 1e-8).norm(dim=-1)
    return -distance.clamp(min=1e-4).log().mean()


def _one_background(count: int, generator: torch.Generator) -> Scenes:
    """Training scenes that all show one kind of background, each with its own texture."""
    kind = int(torch.randint(len(BACKGROUNDS), (1,), generator=generator))
    drawn = sample_scenes(count * 12, generator, split="train", two_share=0.4)
    rows = (drawn.background == kind).nonzero()[:, 0]
    return drawn[rows[torch.arange(count) % len(rows)]]


def _cosine(ends: tuple[float, float], progress: float) -> float:
    start, end = ends
    return end - (end - start) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
