"""Does the text-to-image UNet draw what prompts say, on held-out prompts, by the judge."""

from farm.zoo.judge import load_judge
from farm.zoo.matching import match_each
from farm.zoo.measures.bench import Bench, Figures, by_group, combinations, stacked
from farm.zoo.recipes.unet import UNetRecipe
from farm.zoo.scenes.scenes import Scenes, generator_for, sample_scenes


def prompts_with(objects: int, count: int, seed: int) -> Scenes:
    """`count` held-out scenes of so many objects each; their canonical captions are the prompts."""
    drawn = sample_scenes(
        2 * count + 64,  # where two objects do not fit there is one
        generator_for("heldout", seed, f"prompts of {objects}"),
        split="heldout",
        two_share=objects - 1.0,
    )
    return drawn[(drawn.count == objects).nonzero()[:count, 0]]


def measure_text_to_image(bench: Bench, part: str = "unet") -> Figures:
    """Shares of attributes that samples have as asked: DDIM of 20 steps, guidance 4.

    As many prompts with two objects as with one; figures as `match_each` defines them.
    """
    recipe = UNetRecipe(networks=bench.networks, name=part)
    unet, judge = recipe.load(bench.networks), load_judge(bench.networks)
    figures: Figures = {}
    for objects, name in ((1, "one"), (2, "two")):
        scenes = prompts_with(objects, bench.cases, bench.seed)
        rows: list[dict[str, float]] = []
        for number, chunk in enumerate(bench.chunks(f"{part}, prompts with {name}")):
            wanted = scenes[chunk]
            drawn = recipe.sample(unet, wanted, seed=10_000 * bench.seed + 100 * objects + number)
            rows += match_each(judge, drawn, wanted)
        figures[name] = by_group(stacked(rows), combinations(scenes.held_out()))
    return figures
