"""EditInfinity's networks: bits as pictures, bits foretold, words located, prompts followed."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from farm.backbones.infinity.loading import load_vae
from farm.backbones.infinity.loss import bit_loss
from farm.backbones.infinity.maps import attention_map
from farm.backbones.infinity.networks import VAE
from farm.backbones.infinity.quantiser import quantise, teacher_inputs, teacher_targets
from farm.backbones.infinity.transformer import PassOptions
from farm.masks import binarise_midpoint, iou, pointing
from farm.metrics.psnr import psnr
from farm.zoo.judge import load_judge
from farm.zoo.matching import match_each
from farm.zoo.measures.bench import Bench, Figures, by_group, combinations, stacked
from farm.zoo.measures.text_to_image import prompts_with
from farm.zoo.recipes.bsq_vae import SIDES, scenes_schedule
from farm.zoo.recipes.infinity import InfinityRecipe, infinity_in
from farm.zoo.recipes.t5 import padded
from farm.zoo.recipes.word_sets import BACKGROUND_TAG, word_sets
from farm.zoo.scenes.captions import caption
from farm.zoo.scenes.rendering import Rendering, render
from farm.zoo.scenes.scenes import Scenes, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import SIZE

Rows = list[dict[str, float]]


def measure_bsq_vae(bench: Bench) -> Figures:
    """PSNR of pictures made of the bits of all scales, and of the first scales alone."""
    vae = load_vae(bench.networks / VAE)
    schedule = scenes_schedule(vae.config)

    def measure(scenes: Scenes, drawn: Rendering) -> Rows:
        del scenes
        history = quantise(vae.encode(drawn.images), schedule).history
        pictures = {f"psnr_{s}": vae.decode(h) for s, h in zip(SIDES, history, strict=True)}
        found = {name: psnr(p, drawn.images) for name, p in pictures.items()}
        found["psnr"] = found[f"psnr_{SIDES[-1]}"]
        return [{n: v[i].item() for n, v in found.items()} for i in range(len(drawn.images))]

    return _over_scenes(bench, "bsq_vae", measure)


def measure_infinity(bench: Bench) -> Figures:
    """Bits foretold at each scale, where words look, and attributes that samples have as asked.

    Maps are means over blocks, heads and all scales, of one pass over the picture's own bits;
    regions are cut at the midpoint of their range.
    """
    recipe = InfinityRecipe(networks=bench.networks)
    reader = _Reader(recipe, bench)
    figures = _over_scenes(bench, "infinity, bits", reader.accuracy)
    figures = {"bits": figures, "attention": _over_scenes(bench, "infinity, words", reader.words)}
    module, judge = recipe.load(bench.networks), load_judge(bench.networks)
    for objects, name in ((1, "one"), (2, "two")):
        scenes = prompts_with(objects, bench.cases, bench.seed)
        rows: Rows = []
        for number, chunk in enumerate(bench.chunks(f"infinity, prompts with {name}")):
            wanted = scenes[chunk]
            seed = 10_000 * bench.seed + 100 * objects + number
            rows += match_each(judge, recipe.sample(module, wanted, seed=seed), wanted)
        figures[name] = by_group(stacked(rows), combinations(scenes.held_out()))
    return figures


class _Reader:
    """One teacher-forced pass of the transformer over rendered scenes."""

    def __init__(self, recipe: InfinityRecipe, bench: Bench) -> None:
        self.recipe = recipe
        self.infinity = infinity_in(recipe.load(bench.networks))

    def accuracy(self, scenes: Scenes, drawn: Rendering) -> Rows:
        """Share of bits foretold right, by scale."""
        logits, _, targets = self._pass(scenes, drawn, None)
        found = bit_loss(logits, targets, self.recipe.schedule).accuracy
        named = [f"accuracy_{side}" for side in SIDES]
        return [dict(zip(named, row.tolist(), strict=True)) for row in found]

    def words(self, scenes: Scenes, drawn: Rendering) -> Rows:
        """How well the maps of nouns, attributes and backgrounds lie on what they name."""
        texts = [caption(scenes, i) for i in range(len(scenes))]
        orders = [list(range(int(scenes.count[i]))) for i in range(len(scenes))]
        longest = max(self.recipe.tokenizer.encode(text).length for text in texts)
        sets, tags = word_sets(self.recipe.tokenizer, texts, orders, longest)
        _, shares, _ = self._pass(scenes, drawn, sets)
        assert shares is not None
        size = (SIZE, SIZE)
        maps = [
            attention_map(shares[:, n], self.recipe.schedule, size) for n in range(sets.shape[1])
        ]
        rows: Rows = []
        for i in range(len(scenes)):
            masks = [*drawn.masks[i], 1 - drawn.masks[i].amax(0)]
            found: dict[str, list[float]] = {}
            seen: set[int] = set()
            for number, tag in enumerate(tags[i].tolist()):
                if tag < 0:
                    continue
                # a noun comes before its attributes
                kind = "attribute" if tag in seen else "noun"
                kind = "background" if tag == BACKGROUND_TAG else kind
                seen.add(tag)
                score, mask = maps[number][i][None, None], (masks[tag] > 0.5).float()[None, None]
                hit = float(pointing(score, mask).item())
                found.setdefault(f"{kind}_pointing", []).append(hit)
                overlap = iou(binarise_midpoint(score), mask).item()
                found.setdefault(f"{kind}_midpoint_iou", []).append(overlap)
            rows.append({name: sum(values) / len(values) for name, values in found.items()})
        return rows

    def _pass(
        self, scenes: Scenes, drawn: Rendering, watched: Float[Tensor, "batch sets rows"] | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        recipe = self.recipe
        texts = [caption(scenes, i) for i in range(len(scenes))]
        ids, present = padded(recipe.tokenizer, texts)
        found = quantise(recipe.vae.encode(drawn.images), recipe.schedule)
        given = self.infinity.condition(recipe.text(ids, present), present)
        inputs = teacher_inputs(found, recipe.schedule)
        options = PassOptions(watched=watched)
        logits, shares = self.infinity(given, inputs, recipe.schedule, options)
        return logits, shares, teacher_targets(found, recipe.schedule)


def _over_scenes(bench: Bench, what: str, measure: Callable[[Scenes, Rendering], Rows]) -> Figures:
    scenes = sample_scenes(
        bench.cases, generator_for("heldout", bench.seed, what), split="heldout", two_share=0.33
    )
    rows: Rows = []
    with torch.no_grad():
        for chunk in bench.chunks(what):
            wanted = scenes[chunk]
            rows += measure(wanted, render(wanted))
    return by_group(stacked(rows), combinations(scenes.held_out()))
