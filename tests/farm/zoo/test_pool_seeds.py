"""Another seed trains on other scenes: what continues a training would else see the same again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from farm.backbones.infinity.networks import VAE
from farm.zoo.recipes.feature_pool import feature_pool
from farm.zoo.recipes.holes import hole_pool
from farm.zoo.recipes.latents import latent_pool
from farm.zoo.recipes.parts import find_part
from farm.zoo.recipes.remains import remains_pool
from farm.zoo.recipes.splices import old_scenes
from farm.zoo.weights import SCENES_FOLDER
from tests.farm.zoo.test_splices import scenes_of

POOLS: dict[str, Callable[[int, Path], torch.Tensor]] = {
    "latents": lambda seed, cache: (
        latent_pool(SCENES_FOLDER / "vae", 4, seed, cache, two_share=0.5).latents
    ),
    "holes": lambda seed, cache: (
        hole_pool(SCENES_FOLDER / "vae", 4, seed, 1, cache, two_share=0.5).latents
    ),
    "remains": lambda seed, cache: (
        remains_pool(SCENES_FOLDER / "vae", 4, seed, cache, two_share=0.5).latents
    ),
    "features": lambda seed, cache: (
        feature_pool(SCENES_FOLDER / VAE, 4, seed, cache, two_share=0.5).features
    ),
    "before": lambda seed, cache: (
        old_scenes(SCENES_FOLDER / VAE, scenes_of(4), seed, cache, f"pool-of-{seed}").features
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_another_seed_encodes_other_scenes_beside_the_first(name: str, tmp_path: Path) -> None:
    first, other, again = (POOLS[name](seed, tmp_path) for seed in (0, 1, 0))
    assert torch.equal(first, again)
    assert not any(torch.equal(old, new) for old, new in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("part", "pools"),
    [
        ("unet", {"pool": "unet.latent_pool"}),
        ("unet-ungrounded", {"pool": "unet.latent_pool"}),
        ("inpainting", {"pool": "inpainting.hole_pool", "edited": "inpainting.remains_pool"}),
        ("infinity", {"pool": "infinity.feature_pool"}),
    ],
)
def test_a_part_hands_its_seed_to_its_pools(
    part: str, pools: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[object] = []

    def asked(_folder: object, _count: object, seed: object, *_others: object, **_named: object):
        seeds.append(seed)
        raise _AskedError

    recipe = find_part(part).recipe(SCENES_FOLDER, None, 7)
    for attribute, name in pools.items():
        monkeypatch.setattr(f"farm.zoo.recipes.{name}", asked)
        with pytest.raises(_AskedError):
            getattr(recipe, attribute)
    assert seeds == [7] * len(pools)


class _AskedError(Exception):
    """Nothing is encoded to see what would be."""
