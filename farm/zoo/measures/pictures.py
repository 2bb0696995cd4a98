"""Pictures of what the networks do: the first cases of a seed, never chosen."""

import torch
from jaxtyping import Float
from torch import Tensor

from farm.backbones.infinity.networks import TRANSFORMER
from farm.zoo.measures.bench import Bench
from farm.zoo.measures.hole_tasks import hole_tasks
from farm.zoo.measures.word_attention import AttentionReader
from farm.zoo.recipes.holes import with_hole
from farm.zoo.recipes.infinity import InfinityRecipe
from farm.zoo.recipes.inpainting import InpaintingRecipe
from farm.zoo.recipes.unet import UNetRecipe
from farm.zoo.scenes.preview import grid
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import BACKGROUNDS, SHAPES, SIZE

_COLUMNS = 16
_PICTURES = 64
_DARK = 0.2  # what is left of a pixel that nothing looks at


def text_to_image_grid(
    bench: Bench, part: str = "unet", *, two_share: float = 0.5
) -> Float[Tensor, "3 height width"]:
    """Samples of the first 64 prompts of the seed."""
    scenes = sample_scenes(
        _PICTURES, generator_for("heldout", bench.seed), split="heldout", two_share=two_share
    )
    if part == TRANSFORMER:
        recipe = InfinityRecipe(networks=bench.networks)
    else:
        recipe = UNetRecipe(networks=bench.networks, name=part)
    images = recipe.sample(recipe.load(bench.networks), scenes, seed=bench.seed)
    return grid(images, columns=_COLUMNS)


def inpainting_grid(bench: Bench) -> Float[Tensor, "3 height width"]:
    """The first 64 tasks of the seed: each picture with its hole, beside it what was drawn."""
    recipe = InpaintingRecipe(networks=bench.networks)
    tasks = hole_tasks(_PICTURES, bench.seed)
    inpainted = recipe.sample(recipe.load(bench.networks), tasks, seed=bench.seed)
    pairs = torch.stack([with_hole(tasks.images, tasks.holes), inpainted.drawn], 1)
    return grid(pairs.flatten(0, 1), columns=_COLUMNS)


def attention_grid(bench: Bench, part: str = "unet") -> Float[Tensor, "3 height width"]:
    """The first 32 scenes of the seed, four tiles each: the picture, and where its words look.

    Tiles are the first noun, the second (white where there is none), and the background's word;
    bright is where the word looks most, each map stretched to its own range.
    """
    reader = AttentionReader(bench, part)
    scenes = sample_scenes(32, generator_for("heldout", bench.seed), split="heldout", two_share=0.5)
    drawn = render(scenes)
    maps = reader.read(scenes, drawn, generator_for("heldout", bench.seed, "attention noise"))
    tiles: list[Tensor] = []
    for i in range(len(scenes)):
        picture = drawn.images[i]
        nouns = reader.tokens(scenes, i, SHAPES)
        words = [*nouns, *reader.tokens(scenes, i, BACKGROUNDS)]
        lit = [spotlight(picture, maps.at(i, token)["all"]) for token in words]
        if len(nouns) == 1:
            lit.insert(1, torch.ones(3, SIZE, SIZE))
        tiles += [picture, *lit]
    return grid(torch.stack(tiles), columns=_COLUMNS)


def spotlight(
    picture: Float[Tensor, "3 height width"], attention: Float[Tensor, "height width"]
) -> Float[Tensor, "3 height width"]:
    """The picture, dark where the map is low: the map stretched to its own minimum and maximum."""
    low, high = attention.aminmax()
    light = (attention - low) / (high - low).clamp(min=1e-9)
    return picture * (_DARK + (1 - _DARK) * light)
