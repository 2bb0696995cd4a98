"""Which of several drawings is given: it moved as the words did, and is built as the source is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from farm.errors import EditDivergedError
from farm.losses.clip import text_similarity
from farm.losses.structure import structure_loss
from farm.masks import Box
from farm.training import keyed_generator

Image = Float[Tensor, "3 image_height image_width"]
Inside = Bool[Tensor, "fine_height fine_width"]
Embedding = Float[Tensor, " embed"]


@dataclass(frozen=True)
class Looks:
    """What CLIP saw of pictures, each looked at in the same places.

    Attributes:
        embeds: in the space shared with texts.
        tokens: of one layer, for structure.
    """

    embeds: Float[Tensor, "*pictures looks embed"]
    tokens: Float[Tensor, "*pictures looks places width"]


_CANDIDATE = "candidate"


@runtime_checkable
class Chooser(Protocol):
    """Whoever can look at drawings; CLIP, asked through an executor."""

    def choose(self, source: Image, drawings: Sequence[Image], inside: Inside) -> "Choice":
        """The best of them, of which a region was to change."""
        ...


@dataclass(frozen=True)
class Candidate:
    """What CLIP says of one drawing.

    Attributes:
        direction: cosine of its move from the source with the prompts' move; -1 to 1, mean of the
            whole picture and of the part around the region.
        text: cosine with the target prompt; the same.
        structure: how differently from the source it is built: root mean square difference of the
            self-similarities of CLIP's tokens, 0 to 2; the same.
        structure_weight: of that in the score.
    """

    direction: float
    text: float
    structure: float
    structure_weight: float

    @property
    def score(self) -> float:
        """What decides."""
        return self.direction + self.text - self.structure_weight * self.structure

    def figures(self) -> dict[str, float]:
        """By name."""
        return {
            "score": self.score,
            "direction": self.direction,
            "text": self.text,
            "structure": self.structure,
        }


@dataclass(frozen=True)
class Choice:
    """Which drawing is taken, and what was said of each."""

    number: int
    candidates: tuple[Candidate, ...]

    @property
    def best_first(self) -> tuple[int, ...]:
        """All drawings' numbers from the best down; equal ones in their order."""
        numbers = range(len(self.candidates))
        return tuple(sorted(numbers, key=lambda number: -self.candidates[number].score))


def choose(
    drawings: Looks,
    source: Looks,
    texts: tuple[Embedding, Embedding],
    structure_weight: float,
) -> Choice:
    """The drawing with the best score; the first of equals (D14).

    Args:
        drawings: what CLIP saw of each.
        source: of the picture as it was, likewise, in the same places.
        texts: embeddings of the source prompt and of the target prompt.
        structure_weight: how much it counts against a drawing that it is built unlike the source.

    Raises:
        EditDivergedError: what CLIP saw of a drawing is not finite.
    """
    was, asked = texts
    directions = text_similarity(drawings.embeds - source.embeds, asked - was).mean(dim=1)
    agreements = text_similarity(drawings.embeds, asked).mean(dim=1)
    by_look = [
        structure_loss(drawings.tokens[:, look], source.tokens[look]).sqrt()
        for look in range(len(source.tokens))
    ]
    structures = torch.stack(by_look, dim=1).mean(dim=1)
    figures = torch.stack([directions, agreements, structures], dim=1)
    found = tuple(
        Candidate(direction, text, structure, structure_weight)
        for direction, text, structure in figures.tolist()
    )
    scores = [one.score for one in found]
    if not figures.isfinite().all():
        raise EditDivergedError(
            f"CLIP's scores of the {len(found)} drawings are {scores}: take another seed, or lower "
            "guidance"
        )
    return Choice(scores.index(max(scores)), found)


def part_around(inside: Inside, height: int, width: int) -> Box:
    """The smallest square around a region, of half the picture's shorter side at least.

    It lies in the picture; where the region is longer than the shorter side, its middle is seen.
    """
    rows, columns = (
        _extent(inside.any(dim=axis), side) for axis, side in ((1, height), (0, width))
    )
    shorter = min(height, width)
    longer = max(rows[1] - rows[0], columns[1] - columns[0])
    side = min(max(longer, -(-shorter // 2)), shorter)
    top, left = _placed(rows, side, height), _placed(columns, side, width)
    return Box(left, top, left + side, top + side)


def seeds_of(seed: int, number: int) -> tuple[int, ...]:
    """Seeds of so many drawings: the edit's own first, so that one alone is what it always was."""
    return (seed, *(_seed(seed, index) for index in range(1, number)))


def _seed(seed: int, index: int) -> int:
    generator = keyed_generator(seed, _CANDIDATE, index)
    return int(torch.randint(2**62, (), generator=generator))


def _extent(there: Bool[Tensor, " cells"], side: int) -> tuple[int, int]:
    """First and last pixel (exclusive) of the cells that are set; all where none is."""
    places = there.nonzero()[:, 0]
    if not len(places):
        return 0, side
    first, last, cells = int(places[0]), int(places[-1]) + 1, len(there)
    return first * side // cells, -(-last * side // cells)


def _placed(extent: tuple[int, int], side: int, most: int) -> int:
    """Where a part of `side` pixels begins that has the extent's middle in its middle."""
    first = (extent[0] + extent[1] - side) // 2
    return min(max(first, 0), most - side)
