"""Is the judge right, and does it call pictures that nobody edited a success?"""

import torch
from jaxtyping import Float
from torch import Tensor

from farm.backbones.stable_diffusion import Autoencoder
from farm.zoo.judge import Judge, is_present, load_judge, read_object
from farm.zoo.measures.bench import Bench, Figures, by_group, combinations, stacked
from farm.zoo.recipes.diffusion import load_autoencoder
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import EDIT_TYPES
from farm.zoo.scoring import fidelity, is_success, judge_edit


def measure_judge(bench: Bench) -> Figures:
    """Right answers per attribute, on renders and on what the autoencoder makes of them.

    `edits`: success of sources left alone, as the autoencoder returns them (must be rare), and of
    re-rendered targets through the autoencoder (must be the rule), per type of edit.
    """
    judge, autoencoder = load_judge(bench.networks), load_autoencoder(bench.networks)
    scenes = sample_scenes(
        bench.cases, generator_for("heldout", bench.seed, "judge"), split="heldout"
    )
    rows: dict[str, list[dict[str, float]]] = {"rendered": [], "decoded": []}
    for chunk in bench.chunks("judge, attributes"):
        some = scenes[chunk]
        drawn = render(some)
        with torch.no_grad():
            decoded = autoencoder.decode(autoencoder.encode(drawn.images))
        for name, images in (("rendered", drawn.images), ("decoded", decoded)):
            rows[name] += _answers(judge, images, some, drawn.masks)
    groups = combinations(scenes.held_out())
    figures: Figures = {name: by_group(stacked(found), groups) for name, found in rows.items()}
    figures["edits"] = _on_edits(bench, judge, autoencoder)
    return figures


def _answers(
    judge: Judge,
    images: Float[Tensor, "scenes 3 height width"],
    scenes: Scenes,
    masks: Float[Tensor, "scenes slots height width"],
) -> list[dict[str, float]]:
    """Per picture, means over its objects."""
    reading = judge(images)
    background = reading.background.argmax(1) == scenes.background
    slots = [read_object(reading, masks[:, slot]) for slot in range(masks.shape[1])]
    rows: list[dict[str, float]] = []
    for i in range(len(scenes)):
        count = int(scenes.count[i])
        row = {
            name: sum(
                float(getattr(slots[s], name)[i] == getattr(scenes, name)[i, s])
                for s in range(count)
            )
            / count
            for name in ("shape", "colour", "pattern")
        }
        row["present"] = sum(float(is_present(slots[s])[i]) for s in range(count)) / count
        rows.append({**row, "background": float(background[i])})
    return rows


def _on_edits(bench: Bench, judge: Judge, autoencoder: Autoencoder) -> Figures:
    edits = sample_edits(bench.cases, bench.seed, EDIT_TYPES)
    rows: list[dict[str, float]] = []
    for chunk in bench.chunks("judge, edits"):
        for edit in edits[chunk]:
            truth = edit_truth(edit)
            with torch.no_grad():
                both = torch.cat([truth.source.images, truth.target.images])
                unedited, edited = autoencoder.decode(autoencoder.encode(both))
            row: dict[str, float] = {}
            for name, picture in (("unedited_success", unedited), ("true_success", edited)):
                judgement = judge_edit(judge, picture, edit, truth)
                row[name] = float(is_success(judgement, fidelity(picture, unedited, truth)))
            rows.append(row)
    groups = {kind: torch.tensor([e.type == kind for e in edits]) for kind in EDIT_TYPES}
    return by_group(stacked(rows), groups)
