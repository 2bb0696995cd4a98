"""What an edit costs, counted before anything is computed."""

from collections import Counter
from dataclasses import dataclass

from farm.methods.learnable_regions.config import (
    AnchorConfig,
    LearnableRegionsConfig,
    SearchConfig,
    SelectionConfig,
)


@dataclass(frozen=True)
class Drawn:
    """How many regions are drawn.

    Attributes:
        table: for the loss table, before sizes are chosen.
        ranked: chosen ones, drawn as previews because the table lacks them.
        rungs: (regions, steps) of each rung.
        prepared: different regions among the last two.
        draws: renders of each region of the last rung.
    """

    table: int
    ranked: int
    rungs: tuple[tuple[int, int], ...]
    prepared: int
    draws: int = 1

    @property
    def previews(self) -> int:
        """Renders of as many steps as the table's."""
        return self.table + self.ranked

    @property
    def renders(self) -> tuple[tuple[int, int], ...]:
        """(renders, steps) of each rung."""
        *earlier, (regions, steps) = self.rungs
        return (*earlier, (regions * self.draws, steps))


def trains(config: SearchConfig, *, has_start: bool) -> bool:
    """Whether AnchorNet is trained on the picture."""
    if config.chooser != "trained" or config.quirks.no_gradient:  # D7
        return False
    return config.train or not has_start


def needs_table(config: SearchConfig, *, has_start: bool) -> bool:
    """Whether every anchor is drawn in every size before sizes are chosen."""
    by_table = config.training.objective != "reinforce"
    return config.chooser == "argmin" or (trains(config, has_start=has_start) and by_table)


def contrasts(config: AnchorConfig) -> bool:
    """Whether the inpainting model is asked where the words point."""
    return config.grounding > 0 and config.contrast > 0


def asks_for_verdicts(config: SelectionConfig, drawn: Drawn) -> bool:
    """Whether the inpainting model says which drawing wins; not where there is one alone."""
    return config.test_gamma > 0 and drawn.renders[-1][0] > 1


def plan_rungs(config: LearnableRegionsConfig, chosen: int) -> tuple[tuple[int, int], ...]:
    """(regions, steps) of each rung for so many different regions."""
    rungs: list[tuple[int, int]] = []
    for keep, steps in config.selection.rungs:
        chosen = min(chosen, keep)
        rungs.append((chosen, steps))
    return tuple(rungs)


def most_drawn(config: LearnableRegionsConfig, *, has_start: bool = False) -> Drawn:
    """An upper bound, from the configuration alone.

    Less is drawn where boxes coincide, and where REINFORCE draws a pair twice.
    """
    search = config.search
    points, sizes = search.anchors.point_number, search.anchors.num_sizes
    known = needs_table(search, has_start=has_start)
    table = points * sizes if known else 0
    if not known and trains(search, has_start=has_start):
        table = points * min(sizes, search.training.iterations)
    chosen = points * sizes if search.chooser == "all" else points
    rungs = plan_rungs(config, chosen)
    ranked = 0 if known or rungs[0][0] == chosen else chosen
    draws = config.selection.draws
    return Drawn(table, ranked, rungs, prepared=ranked or rungs[0][0], draws=draws)


def planned_work(config: LearnableRegionsConfig, drawn: Drawn) -> dict[str, int]:
    """Units of the frozen networks' work of a whole edit, as the operations count them.

    Args:
        config: of the edit.
        drawn: `most_drawn` before the edit; what the edit says afterwards is met exactly.
    """
    search, views = config.search, config.analysis.num_views
    branches = _branches(config)
    renders = drawn.previews + sum(count for count, _ in drawn.renders)
    steps = drawn.previews * search.preview_steps
    steps += sum(count * n for count, n in drawn.renders)
    grounded = search.anchors.grounding > 0
    unscaled = renders if search.quirks.unscaled_results else 0
    work = Counter(
        {
            "dino_forward": 1,
            "text_forward": 3,
            "scorer_text_forward": 2,
            "scorer_forward": (1 + views) * (1 + renders) + grounded + unscaled,
            "scorer_backward": int(grounded),
            "vae_encode": drawn.table + drawn.prepared + _seen_as_a_whole(config, drawn),
            "vae_decode": renders,
            "unet_forward": branches * steps + probes(config, drawn),
        }
    )
    return {name: amount for name, amount in work.items() if amount}


def probes(config: LearnableRegionsConfig, drawn: Drawn) -> int:
    """Forwards of the UNet that draw nothing: of the contrast, and of verdicts on results."""
    anchors, selection = config.search.anchors, config.selection
    found = 2 * anchors.probe.forwards if contrasts(anchors) else 0
    if asks_for_verdicts(selection, drawn):
        found += 2 * selection.probe.forwards * drawn.renders[-1][0]
    return found


def _seen_as_a_whole(config: LearnableRegionsConfig, drawn: Drawn) -> int:
    """Pictures that the probes look at, a grey one each time included."""
    found = 2 if contrasts(config.search.anchors) else 0
    if asks_for_verdicts(config.selection, drawn):
        found += drawn.renders[-1][0] + 1
    return found


def full_renders(config: LearnableRegionsConfig, drawn: Drawn) -> float:
    """The work in full renders: all else counts by its share of a full render's forwards."""
    full = _branches(config) * config.selection.rungs[-1][1]
    return planned_work(config, drawn)["unet_forward"] / full


def _branches(config: LearnableRegionsConfig) -> int:
    return 1 if config.search.render.guidance_scale == 1 else 2
