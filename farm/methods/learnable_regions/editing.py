"""Stage 3: the chosen regions by successive halving, the winner at full resolution."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from farm.masks import Box
from farm.methods.learnable_regions.analysed import Analysis
from farm.methods.learnable_regions.anchor_net import State
from farm.methods.learnable_regions.config import LearnableRegionsConfig
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.methods.learnable_regions.rendering import Drawing, Easel, Region
from farm.methods.learnable_regions.scoring import Aim, RegionScore, build_aim, score_pictures
from farm.methods.learnable_regions.search import build_easel
from farm.methods.learnable_regions.searched import Search
from farm.methods.learnable_regions.selection import choose, final_scores
from farm.methods.learnable_regions.training import expected_loss
from farm.methods.learnable_regions.verdict import verdicts
from farm.methods.learnable_regions.work import (
    Drawn,
    asks_for_verdicts,
    full_renders,
    plan_rungs,
    planned_work,
)
from farm.progress import Progress

STAGE = "learnable_regions.editing"


@dataclass(frozen=True)
class Candidate:
    """A region that was drawn after sizes were chosen.

    Attributes:
        region: where.
        steps: of its last drawing.
        score: of its last drawing.
        final: what the winner was chosen by; None where the region was dropped before.
        verdict: the inpainting model's; None where it was not asked.
    """

    region: Region
    steps: int
    score: RegionScore
    final: float | None = None
    verdict: float | None = None


@dataclass(frozen=True)
class RegionEdit:
    """What an edit gives; pictures are in [0, 1].

    Attributes:
        image: the edited picture, at the original's resolution.
        mask: how much of each pixel could be replaced; where 0, the original is untouched.
        box: the winning region, in pixels of the original.
        candidates: every region that was drawn in this stage, the winner first.
        results: finished regions' pictures as CLIP was shown them, in the order of `candidates`.
        network: AnchorNet's parameters.
        figures: plain numbers about this edit.
        drawn: what was drawn in all stages; `planned_work` of it is the edit's work.
    """

    image: Float[Tensor, "3 height width"]
    mask: Float[Tensor, "1 height width"]
    box: Box
    candidates: tuple[Candidate, ...]
    results: tuple[Float[Tensor, "3 size size"], ...]
    network: State
    figures: dict[str, float]
    drawn: Drawn


def edit(
    image: Float[Tensor, "3 height width"],
    analysis: Analysis,
    search: Search,
    client: RegionBackbones,
    config: LearnableRegionsConfig,
    *,
    seed: int,
) -> Generator[Progress, None, RegionEdit]:
    """Draw the chosen regions, ever fewer with ever more steps, and paste the best.

    Each rung keeps the regions of the smallest loss in their last drawing. The last one draws each
    of its regions from several noises; of these, the one wins that is nearest to the text and to
    the source (`selection.choose`).

    Args:
        image: the original at its own resolution, in [0, 1].
        analysis: of the same picture and caption.
        search: of the same edit.
        client: the frozen networks.
        config: of the edit.
        seed: as in the search.

    Yields:
        One `Progress` a step of drawing.

    Raises:
        EditDivergedError: a loss is not finite.
    """
    easel = build_easel(image, search.state, client, config, seed=seed)
    aim = build_aim(
        analysis,
        search.state.target,
        config.search.loss,
        config.analysis,
        config.search.quirks,
        seed=seed,
    )
    regions = search.regions
    rungs = plan_rungs(config, len(regions))
    unknown = [r for r in regions if not _loss(search, r).isfinite()]
    ranked = unknown if rungs[0][0] < len(regions) else []
    preview = config.search.preview_steps
    drawn = Drawn(
        table=int(search.drawn),
        ranked=len(ranked),
        rungs=rungs,
        prepared=len(ranked) or rungs[0][0],
        draws=config.selection.draws,
    )
    total = drawn.ranked * preview + sum(count * steps for count, steps in drawn.renders)
    halving = _Halving(easel, aim, client, search.state.misfit, total)
    losses = {region: _loss(search, region).item() for region in regions}
    if ranked:
        yield from halving.draw(ranked, preview)
        losses |= {region: halving.candidates[region].score.loss for region in ranked}
    drawings: list[Drawing] = []
    left = regions
    for number, (keep, steps) in enumerate(rungs, 1):
        left = sorted(left, key=losses.__getitem__)[:keep] if keep < len(left) else left
        if number == len(rungs):
            # D12: which region, and which drawing of it, are two questions
            left = [replace(region, draw=n) for region in left for n in range(drawn.draws)]
        drawings = yield from halving.draw(left, steps)
        losses = {region: halving.candidates[region].score.loss for region in left}
    verdict = None
    if asks_for_verdicts(config.selection, drawn):
        prompts = (search.state.source_embeds, search.state.embeds)
        pictures = [easel.on_square(drawing) for drawing in drawings]
        probe = config.selection.probe
        verdict = yield from verdicts(pictures, prompts, client, probe, seed=seed)
    return _finish(drawings, halving, verdict, search, config, drawn)


class _Halving:
    """Drawing of rungs; keeps the last figures of each region."""

    def __init__(
        self,
        easel: Easel,
        aim: Aim,
        client: RegionBackbones,
        misfit: Callable[[Region], float],
        total: int,
    ) -> None:
        self.easel, self._misfit = easel, misfit
        self.candidates: dict[Region, Candidate] = {}
        self._aim, self._client, self._total = aim, client, total
        self._done = 0

    def draw(
        self, regions: Sequence[Region], steps: int
    ) -> Generator[Progress, None, list[Drawing]]:
        drawing = self.easel.draw(regions, steps)
        while True:
            try:
                next(drawing)
            except StopIteration as done:
                drawings: list[Drawing] = done.value
                break
            self._done += len(regions)
            yield Progress(STAGE, self._done, self._total, preview=self.easel.half_way)
        pictures = [self.easel.on_square(drawing) for drawing in drawings]
        misfits = [self._misfit(region) for region in regions]
        scores = score_pictures(pictures, misfits, self._aim, self._client)
        for region, score in zip(regions, scores, strict=True):
            self.candidates[region] = Candidate(region, steps, score)
        return drawings


def _loss(search: Search, region: Region) -> Float[Tensor, ""]:
    return search.state.table[region.anchor, region.size]


def _finish(
    drawings: Sequence[Drawing],
    halving: _Halving,
    verdict: Float[Tensor, " drawings"] | None,
    search: Search,
    config: LearnableRegionsConfig,
    drawn: Drawn,
) -> RegionEdit:
    """The winner among finished drawings, pasted into the original."""
    finished = [halving.candidates[drawing.region] for drawing in drawings]
    text = torch.tensor([c.score.text for c in finished])
    similar = torch.tensor([c.score.image for c in finished])
    winner = choose(text, similar, config.selection, verdict)
    finals = final_scores(text, similar, config.selection, verdict).tolist()
    said_of_each = [None] * len(finals) if verdict is None else verdict.tolist()
    rated = [
        Candidate(c.region, c.steps, c.score, final, said)
        for c, final, said in zip(finished, finals, said_of_each, strict=True)
    ]
    order = sorted(range(len(rated)), key=lambda n: (n != winner, -finals[n]))
    dropped = [c for c in halving.candidates.values() if c not in finished]
    edited, mask = halving.easel.finished(drawings[winner], config.selection.paste_threshold)
    return RegionEdit(
        image=edited,
        mask=mask,
        box=drawings[winner].region.box,
        candidates=(*(rated[n] for n in order), *dropped),
        results=tuple(halving.easel.on_square(drawings[n]) for n in order),
        network=search.network,
        figures=_figures(rated[winner], search, mask, config, drawn),
        drawn=drawn,
    )


def _figures(
    winner: Candidate,
    search: Search,
    mask: Float[Tensor, "1 height width"],
    config: LearnableRegionsConfig,
    drawn: Drawn,
) -> dict[str, float]:
    figures = {
        "loss": winner.score.loss,
        "loss_clip": winner.score.clip,
        "loss_directional": winner.score.directional,
        "loss_structure": winner.score.structure,
        "misfit": winner.score.misfit,
        "text_similarity": winner.score.text,
        "image_similarity": winner.score.image,
        "mask_share": mask.mean().item(),
        "renders": float(drawn.renders[-1][0]),
        "previews": float(drawn.previews + sum(n for n, _ in drawn.rungs[:-1])),
        "full_renders_worth": full_renders(config, drawn),
        "planned_unet_forward": float(planned_work(config, drawn)["unet_forward"]),
    }
    if winner.final is not None:
        figures["final_score"] = winner.final
    if winner.verdict is not None:
        figures["verdict"] = winner.verdict
    table = search.state.table
    if table.isfinite().all():
        figures["expected_loss_before"] = expected_loss(search.before, table).item()
        figures["expected_loss_after"] = expected_loss(search.after, table).item()
        figures["least_loss"] = table.amin().item()
    return figures
