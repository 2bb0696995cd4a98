"""Stage 2: anchors, the table of losses, and AnchorNet's training on it (spec §3, §8).

The table is an artifact of its own: it does not depend on who chooses sizes by it.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from farm.masks import Box
from farm.methods.learnable_regions.analysed import Analysis
from farm.methods.learnable_regions.analysis import scored_square
from farm.methods.learnable_regions.anchor_net import (
    AnchorNet,
    RegionFeatures,
    build_anchor_net,
    state_of,
)
from farm.methods.learnable_regions.config import LearnableRegionsConfig, SearchConfig
from farm.methods.learnable_regions.layout import lay_out, region_features
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.methods.learnable_regions.plan import PromptPlan
from farm.methods.learnable_regions.rendering import Easel, Region
from farm.methods.learnable_regions.scoring import Aim, build_aim, score_pictures
from farm.methods.learnable_regions.searched import Search, SearchState
from farm.methods.learnable_regions.training import (
    gumbel_choice,
    gumbel_noise,
    train_by_drawing,
    train_on_table,
)
from farm.methods.learnable_regions.work import most_drawn, needs_table, trains
from farm.progress import Progress
from farm.training import keyed_generator

STAGE = "learnable_regions.search"
TABLE_STAGE = "learnable_regions.table"


def tabulate(
    image: Float[Tensor, "3 height width"],
    analysis: Analysis,
    prompts: PromptPlan,
    client: RegionBackbones,
    config: LearnableRegionsConfig,
    *,
    seed: int,
    has_start: bool = False,
    checkpoint: SearchState | None = None,
) -> Generator[Progress, None, SearchState]:
    """Anchors, boxes and, where sizes are chosen by it, the whole table of losses.

    Args:
        image: the original at its own resolution, in [0, 1].
        analysis: of the same picture and caption.
        prompts: of the edit.
        client: the frozen networks.
        config: of the edit; AnchorNet, its training and the selection have no influence here.
        seed: of noise and views.
        has_start: whether the search begins with a trained AnchorNet.
        checkpoint: where an interrupted run of the same arguments was; the result is the same.

    Yields:
        One `Progress` a step of drawing; after each batch of drawings it carries a checkpoint.

    Raises:
        InvalidPromptError: to CLIP both prompts mean the same.
        InvalidRequestError: there are more anchors than cells that show the picture.
        EditDivergedError: a loss is not finite.
    """
    state = checkpoint
    if state is None:
        state = yield from lay_out(image, analysis, prompts, client, config, seed=seed)
    run = _Run(image, analysis, state, client, config, seed=seed, stage=TABLE_STAGE)
    if needs_table(config.search, has_start=has_start):
        yield from run.fill(_all_pairs(state.table))
    return run.state


def search(
    image: Float[Tensor, "3 height width"],
    analysis: Analysis,
    prompts: PromptPlan,
    client: RegionBackbones,
    config: LearnableRegionsConfig,
    *,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
    checkpoint: SearchState | None = None,
) -> Generator[Progress, None, Search]:
    """Choose a size for each anchor.

    Args:
        image: the original at its own resolution, in [0, 1].
        analysis: of the same picture and caption.
        prompts: of the edit.
        client: the frozen networks.
        config: of the edit; the selection has no influence here.
        seed: of noise, views, draws, and of AnchorNet's parameters.
        start: parameters of a trained AnchorNet to begin with.
        checkpoint: what `tabulate` gave, or where an interrupted run of the same arguments was.

    Yields:
        One `Progress` a step of drawing and an iteration of training; after each batch of drawings
        it carries a checkpoint.

    Raises:
        InvalidPromptError: to CLIP both prompts mean the same.
        InvalidRequestError: `start` belongs to another AnchorNet, or there are more anchors than
            cells that show the picture.
        EditDivergedError: a loss is not finite.
    """
    state = checkpoint
    if state is None:
        state = yield from lay_out(image, analysis, prompts, client, config, seed=seed)
    has_start = start is not None
    run = _Run(image, analysis, state, client, config, seed=seed, stage=STAGE, has_start=has_start)
    seen = region_features(analysis, state, config)
    network = build_anchor_net(
        seen.features.shape[0],
        state.table.shape[1],
        config.search.network,
        config.search.quirks,
        keyed_generator(seed, STAGE, "network"),
        start,
    )
    with torch.no_grad():
        before = network(seen)
    curve: list[float] = []
    if needs_table(config.search, has_start=has_start):
        yield from run.fill(_all_pairs(state.table))
    if trains(config.search, has_start=has_start):
        curve = yield from run.train(network, seen)
    with torch.no_grad():
        after = network(seen)
    chosen = _choose(after, run.state, config.search, seed)
    return Search(
        state=run.state,
        chosen=torch.tensor(distinct(run.state, chosen)),
        before=before,
        after=after,
        curve=torch.tensor(curve),
        network=state_of(network),
        drawn=torch.tensor(run.drawn),
    )


def build_easel(
    image: Float[Tensor, "3 height width"],
    state: SearchState,
    client: RegionBackbones,
    config: LearnableRegionsConfig,
    *,
    seed: int,
) -> Easel:
    """What draws regions of this edit, in this stage and in the next."""
    square, placement = scored_square(image, client, config.analysis)
    return Easel(
        image,
        square,
        placement,
        client,
        state.embeds,
        state.uncond_embeds,
        config.search.render,
        seed=0 if config.search.quirks.sampled_inference else seed,  # Q7
    )


def distinct(state: SearchState, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pairs of anchor and size without those whose box an earlier one has."""
    first = {state.region(*pair).box: pair for pair in reversed(pairs)}
    return [pair for pair in pairs if first[state.region(*pair).box] == pair]


def _all_pairs(table: Float[Tensor, "anchors sizes"]) -> list[tuple[int, int]]:
    anchors, sizes = table.shape
    return [(i, j) for i in range(anchors) for j in range(sizes)]


def _choose(
    log_probs: Float[Tensor, "anchors sizes"],
    state: SearchState,
    config: SearchConfig,
    seed: int,
) -> list[tuple[int, int]]:
    """The size of each anchor, by whoever is asked."""
    anchors, sizes = log_probs.shape
    if config.chooser == "all":
        return _all_pairs(state.table)
    if config.chooser == "argmin":
        chosen = state.table.argmin(dim=1)
    elif config.chooser == "random":
        generator = keyed_generator(seed, STAGE, "random")
        chosen = torch.randint(sizes, (anchors,), generator=generator)
    elif config.quirks.sampled_inference:
        noise = gumbel_noise(log_probs, keyed_generator(seed, STAGE, "inference"))
        chosen = gumbel_choice(log_probs, noise)
    else:
        chosen = log_probs.argmax(dim=1)
    return list(enumerate(chosen.tolist()))


class _Run:
    """Drawing and training of one search; `state` is replaced whenever the table grows."""

    def __init__(
        self,
        image: Float[Tensor, "3 height width"],
        analysis: Analysis,
        state: SearchState,
        client: RegionBackbones,
        config: LearnableRegionsConfig,
        *,
        seed: int,
        stage: str,
        has_start: bool = False,
    ) -> None:
        self.state = state
        self._client, self._config, self._seed = client, config.search, seed
        self._stage = stage
        self._easel = build_easel(image, state, client, config, seed=seed)
        self._aim: Aim = build_aim(
            analysis,
            state.target,
            config.search.loss,
            config.analysis,
            config.search.quirks,
            seed=seed,
        )
        self._chunk = config.search.batch_size * config.search.anchors.point_number
        table = most_drawn(config, has_start=has_start).table
        iterations = config.search.training.iterations
        trained = stage == STAGE and trains(config.search, has_start=has_start)
        self._total = table * config.search.preview_steps + (iterations if trained else 0)
        self._step = self.drawn * config.search.preview_steps

    @property
    def drawn(self) -> int:
        """Different regions whose loss is known."""
        known = [(int(i), int(j)) for i, j in self.state.table.isfinite().nonzero()]
        return len(distinct(self.state, known))

    def fill(self, pairs: Sequence[tuple[int, int]]) -> Generator[Progress, None, None]:
        """Draw whatever of these pairs the table lacks."""
        lacking = [pair for pair in pairs if not self.state.table[pair].isfinite()]
        regions = [self.state.region(*pair) for pair in distinct(self.state, lacking)]
        for start in range(0, len(regions), self._chunk):
            yield from self._draw(regions[start : start + self._chunk])

    def _draw(self, regions: Sequence[Region]) -> Generator[Progress, None, None]:
        steps = self._config.preview_steps
        drawing = self._easel.draw(regions, steps)
        while True:
            try:
                number = next(drawing)
            except StopIteration as done:
                drawings = done.value
                break
            if number < steps:
                done_steps = self._step + number * len(regions)
                yield Progress(self._stage, done_steps, self._total)
        pictures = [self._easel.on_square(drawing) for drawing in drawings]
        misfits = [self.state.misfit(region) for region in regions]
        scores = score_pictures(pictures, misfits, self._aim, self._client)
        losses = [score.loss for score in scores]
        known = dict(zip((region.box for region in regions), losses, strict=True))
        self.state = replace(self.state, table=_noted(self.state, known))
        self._step += steps * len(regions)
        mean = sum(losses) / len(losses)
        best = min(range(len(losses)), key=losses.__getitem__)
        preview = partial(self._easel.picture, drawings[best])
        yield Progress(
            self._stage, self._step, self._total, mean, checkpoint=self.state, preview=preview
        )

    def train(
        self, network: AnchorNet, seen: RegionFeatures
    ) -> Generator[Progress, None, list[float]]:
        """Train the network; returns the loss of each iteration."""
        curve: list[float] = []
        config, key = self._config.training, (self._seed, STAGE)
        released = self._config.quirks.released_schedule
        if config.objective != "reinforce":
            steps = train_on_table(
                network, seen, self.state.table, config, key=key, released_schedule=released
            )
            for loss in steps:
                curve.append(loss)
                yield self._trained(curve)
            return curve
        drawing = train_by_drawing(network, seen, config, key=key, released_schedule=released)
        chosen = next(drawing)
        while True:
            yield from self.fill(list(enumerate(chosen.tolist())))
            losses = self.state.table.gather(1, chosen[:, None])[:, 0]
            curve.append(losses.mean().item())
            yield self._trained(curve)
            try:
                chosen = drawing.send(losses)
            except StopIteration:
                return curve

    def _trained(self, curve: list[float]) -> Progress:
        self._step += 1
        detail: dict[str, int | float] = {"iteration": len(curve)}
        return Progress(STAGE, self._step, self._total, curve[-1], detail)


def _noted(state: SearchState, losses: Mapping[Box, float]) -> Float[Tensor, "anchors sizes"]:
    """The table with the losses of boxes, wherever they are."""
    table = state.table.clone()
    for pair in _all_pairs(table):
        box = state.region(*pair).box
        if box in losses:
            table[pair] = losses[box]
    return table
