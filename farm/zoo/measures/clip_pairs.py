"""Does CLIP tell scenes and captions apart: retrieval, and edited against unedited."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import CLIPModel

from farm.backbones.clip import ImageEncoder
from farm.zoo.measures.bench import CHUNK, Bench, Figures, by_group, combinations
from farm.zoo.recipes.clip import scenes_tokenizer, token_batch
from farm.zoo.scenes.captions import caption
from farm.zoo.scenes.edits import SceneEdit, sample_edits
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, concatenate, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import EDIT_TYPES

CANDIDATES = 256
"""Among which the right caption, or picture, must be found."""


class PairScorer:
    """Cosine embeddings of pictures and captions by the CLIP of a folder."""

    def __init__(self, bench: Bench) -> None:
        self._clip = CLIPModel.from_pretrained(bench.networks / "clip").float().eval()
        self._pixels = ImageEncoder(self._clip.vision_model).pixels
        self._tokenizer = scenes_tokenizer()

    def pictures(self, scenes: Scenes) -> Float[Tensor, "scenes embed"]:
        return F.normalize(torch.cat([self._pictures(s) for s in _chunks(scenes)]), dim=-1)

    def texts(self, captions: list[str]) -> Float[Tensor, "scenes embed"]:
        with torch.no_grad():
            found = self._clip.text_model(token_batch(self._tokenizer, captions)).pooler_output
            return F.normalize(self._clip.text_projection(found), dim=-1)

    def _pictures(self, scenes: Scenes) -> Tensor:
        with torch.no_grad():
            found = self._clip.vision_model(self._pixels(render(scenes).images)).pooler_output
            return self._clip.visual_projection(found)


def _chunks(scenes: Scenes) -> list[Scenes]:
    return [scenes[slice(i, i + CHUNK)] for i in range(0, len(scenes), CHUNK)]


@dataclass(frozen=True)
class _Pairs:
    """Edits with the embeddings of both pictures and both captions."""

    before: Float[Tensor, "edits embed"]
    after: Float[Tensor, "edits embed"]
    source: Float[Tensor, "edits embed"]
    target: Float[Tensor, "edits embed"]
    held_out: Bool[Tensor, " edits"]

    def figures(self) -> Figures:
        """Shares of edits for which the right pairing has the larger cosine.

        `caption`: on the edited picture the edited caption beats the old one. `picture`: for the
        edited caption the edited picture beats the old one. `unedited`: on the old picture the old
        caption beats the edited one.
        """

        def cosine(pictures: Tensor, texts: Tensor) -> Tensor:
            return (pictures * texts).sum(-1)

        right = cosine(self.after, self.target)
        cases = {
            "caption": (right > cosine(self.after, self.source)).float(),
            "picture": (right > cosine(self.before, self.target)).float(),
            "unedited": (
                cosine(self.before, self.source) > cosine(self.before, self.target)
            ).float(),
        }
        return by_group(cases, combinations(self.held_out))


def measure_clip(bench: Bench) -> Figures:
    """Top-1 retrieval of 256 both ways, and which caption is preferred, per type of edit.

    The 256 captions of a retrieval all differ: among equal ones there is no right answer.
    """
    scorer = PairScorer(bench)
    figures: Figures = {"retrieval": _retrieval(bench, scorer)}
    for done, kind in enumerate(EDIT_TYPES, start=1):
        edits = sample_edits(bench.cases, bench.seed, (kind,))
        figures[f"prefers_{kind}"] = _pairs(scorer, edits).figures()
        bench.tell("clip, types of edit", done, len(EDIT_TYPES))
    return figures


def _pairs(scorer: PairScorer, edits: list[SceneEdit]) -> _Pairs:
    return _Pairs(
        before=scorer.pictures(concatenate([e.source for e in edits])),
        after=scorer.pictures(concatenate([e.target for e in edits])),
        source=scorer.texts([e.source_prompt for e in edits]),
        target=scorer.texts([e.target_prompt for e in edits]),
        held_out=torch.tensor([e.held_out for e in edits]),
    )


def _retrieval(bench: Bench, scorer: PairScorer) -> Figures:
    generator = generator_for("heldout", bench.seed, "retrieval")
    rounds = -(-bench.cases // CANDIDATES)
    right: dict[str, list[Tensor]] = {"image_to_text": [], "text_to_image": []}
    held_out: list[Tensor] = []
    for done in range(1, rounds + 1):
        scenes = distinct_scenes(min(CANDIDATES, bench.cases), generator)
        texts = scorer.texts([caption(scenes, i) for i in range(len(scenes))])
        scores = scorer.pictures(scenes) @ texts.T
        answers = torch.arange(len(scenes))
        right["image_to_text"].append((scores.argmax(1) == answers).float())
        right["text_to_image"].append((scores.argmax(0) == answers).float())
        held_out.append(scenes.held_out())
        bench.tell("clip, retrieval", done, rounds)
    cases = {name: torch.cat(values) for name, values in right.items()}
    return by_group(cases, combinations(torch.cat(held_out)))


def distinct_scenes(count: int, generator: torch.Generator) -> Scenes:
    """Held-out scenes no two of which have the same canonical caption."""
    drawn = sample_scenes(2 * count + 64, generator, split="heldout")
    first: dict[str, int] = {}
    for i in range(len(drawn)):
        first.setdefault(caption(drawn, i), i)
    rows = torch.tensor(list(first.values())[:count])
    assert len(rows) == count, "thousands of captions are possible"
    return drawn[rows]
