"""Every recipe at a size at which twenty steps take a moment, on the shipped networks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from farm.zoo.recipes.autoencoder import AutoencoderRecipe
from farm.zoo.recipes.bsq_vae import BsqVaeRecipe
from farm.zoo.recipes.caption_vit import CaptionVitRecipe
from farm.zoo.recipes.clip import ClipRecipe
from farm.zoo.recipes.dino import DinoRecipe
from farm.zoo.recipes.infinity import InfinityRecipe
from farm.zoo.recipes.inpainting import InpaintingRecipe
from farm.zoo.recipes.judge import JudgeRecipe
from farm.zoo.recipes.loop import LoopConfig, Recipe, Training, train_recipe
from farm.zoo.recipes.t5 import T5Recipe
from farm.zoo.recipes.unet import UNetRecipe
from farm.zoo.weights import SCENES_FOLDER

STEPS = 20
_POOL = 48


class Smoke(NamedTuple):
    recipe: Callable[[Path], Recipe]
    """From a folder for caches."""
    batch_size: int


def _infinity(cache: Path) -> Recipe:
    """On an untrained autoencoder and text encoder, which are written when first needed.

    That is before there are several processes: transformers writes in the first of these alone.
    """
    networks = cache / "networks"
    if not networks.is_dir():
        networks.mkdir(parents=True)
        for recipe in (T5Recipe(networks=SCENES_FOLDER), BsqVaeRecipe()):
            recipe.export(recipe.build(), networks)
    return InfinityRecipe(networks=networks, cache=cache, pool=_POOL)


SMOKES = {
    "vae": Smoke(lambda _: AutoencoderRecipe(), 2),
    "clip": Smoke(lambda _: ClipRecipe(), 6),
    "judge": Smoke(lambda _: JudgeRecipe(start_from=SCENES_FOLDER / "vae"), 2),
    "unet": Smoke(lambda cache: UNetRecipe(networks=SCENES_FOLDER, cache=cache, pool=_POOL), 2),
    "dino": Smoke(lambda _: DinoRecipe(), 4),
    "caption_vit": Smoke(lambda _: CaptionVitRecipe(), 2),
    "inpainting": Smoke(
        lambda cache: InpaintingRecipe(
            start_from=SCENES_FOLDER / "unet",
            networks=SCENES_FOLDER,
            cache=cache,
            pool=_POOL,
            holes=2,
        ),
        2,
    ),
    "bsq_vae": Smoke(lambda _: BsqVaeRecipe(), 2),
    "bsq_decoder": Smoke(
        lambda _: BsqVaeRecipe(
            start_from=SCENES_FOLDER / "bsq_vae", name="bsq_decoder", only_decoder=True
        ),
        2,
    ),
    "t5": Smoke(lambda _: T5Recipe(networks=SCENES_FOLDER), 12),
    "infinity": Smoke(_infinity, 2),
}


def smoke_training(name: str, folder: Path, cache: Path) -> Training:
    smoke = SMOKES[name]
    config = LoopConfig(
        steps=STEPS,
        batch_size=smoke.batch_size,
        learning_rate=1e-3,
        warmup=5,
        checkpoint_every=STEPS // 2,
        evaluate_every=None,
        curve_every=5,
    )
    return Training(smoke.recipe(cache), config, folder)


def train_all_on_rank(rank: int, workers: int, names: list[str], folder: Path) -> None:
    """One process of several: trains every recipe under data parallelism, leaves its weights."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=workers
    )
    for name in names:
        training = smoke_training(name, folder / name, folder / "cache")
        training.config = replace(training.config, checkpoint_every=STEPS)
        losses = [
            report.loss
            for report in train_recipe(training, wrap=DistributedDataParallel, rank=rank)
        ]
        tensors = {n: p.detach().clone() for n, p in training.module.named_parameters()}
        save_file(tensors | {"losses": torch.tensor(losses)}, folder / f"{name}.{rank}.safetensors")
    distributed.destroy_process_group()
