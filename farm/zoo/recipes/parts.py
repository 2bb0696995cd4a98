"""The parts of the scenes zoo in the order in which they must be trained, with their numbers."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from farm.errors import InvalidRequestError, ModelSetError
from farm.zoo.model_sets import write_manifest
from farm.zoo.recipes.autoencoder import AutoencoderRecipe
from farm.zoo.recipes.bsq_vae import BsqVaeRecipe
from farm.zoo.recipes.caption_vit import CaptionVitRecipe
from farm.zoo.recipes.clip import ClipRecipe
from farm.zoo.recipes.dino import DinoRecipe
from farm.zoo.recipes.infinity import InfinityRecipe, scenes_infinity_spec
from farm.zoo.recipes.inpainting import InpaintingRecipe
from farm.zoo.recipes.judge import JudgeRecipe
from farm.zoo.recipes.loop import LoopConfig, Recipe
from farm.zoo.recipes.spec import scenes_spec
from farm.zoo.recipes.t5 import T5Recipe
from farm.zoo.recipes.tokenizer import write_tokenizer
from farm.zoo.recipes.unet import UNetRecipe

_LICENCE = "Apache-2.0"
_SOURCE = "trained by `editfarm zoo train` on the procedural scenes world"


@dataclass(frozen=True)
class Part:
    """One network of the zoo."""

    name: str
    needs: tuple[str, ...]
    """Parts whose exported weights its recipe reads."""
    make: Callable[[Path, Path | None, int], Recipe]
    """From the folder of exported parts, a folder of weights to continue from, and a seed."""
    config: LoopConfig
    shipped: bool = True
    """Whether `install` puts it into the model set."""
    installed_as: str | None = None
    """Folder in the model set, where that is not the part's name."""

    @property
    def folder(self) -> str:
        """Its folder in the model set."""
        return self.installed_as or self.name

    def recipe(self, folder: Path, start_from: Path | None = None, seed: int = 0) -> Recipe:
        """What trains it, beside the parts in `folder`; another seed encodes other scenes."""
        return self.make(folder, start_from, seed)

    def measure(self, networks: Path) -> dict[str, float]:
        """The recipe's own held-out figures, of the part as exported into a folder."""
        recipe = self.recipe(networks)
        with torch.no_grad():
            return recipe.evaluate(recipe.load(networks))


_UNET = LoopConfig(steps=9000, batch_size=32, learning_rate=1e-3, constant=0.3, average=0.998)

PARTS = {
    part.name: part
    for part in (
        Part(
            "vae",
            (),
            lambda _, start, __: AutoencoderRecipe(start_from=start),
            LoopConfig(steps=2500, batch_size=16, learning_rate=1.5e-3, average=0.998),
        ),
        Part(
            "clip",
            (),
            lambda _, start, __: ClipRecipe(start_from=start),
            LoopConfig(
                steps=1800, batch_size=96, learning_rate=1.2e-3, average=0.998, weight_decay=0.03
            ),
        ),
        Part(
            "judge",
            ("vae",),
            lambda folder, _, __: JudgeRecipe(start_from=folder / "vae"),
            LoopConfig(steps=1500, batch_size=64, learning_rate=3e-3, average=0.99),
        ),
        Part(
            "unet",
            ("vae", "clip", "judge"),
            lambda folder, start, seed: UNetRecipe(
                start_from=start, networks=folder, seed=seed, cache=folder.parent / "cache"
            ),
            _UNET,
        ),
        Part(
            "unet-ungrounded",
            ("vae", "clip", "judge"),
            lambda folder, start, seed: UNetRecipe(
                start_from=start,
                networks=folder,
                seed=seed,
                cache=folder.parent / "cache",
                grounding=0.0,
                name="unet-ungrounded",
            ),
            _UNET,
            shipped=False,  # the control beside which attention is reported
        ),
        Part(
            "dino",
            (),
            lambda _, start, __: DinoRecipe(start_from=start),
            LoopConfig(steps=6000, batch_size=32, learning_rate=1e-3, average=0.99, clip=3.0),
            shipped=False,  # what it reached is in docs/zoo.md
        ),
        Part(
            "caption_vit",
            (),
            lambda _, start, __: CaptionVitRecipe(start_from=start),
            LoopConfig(
                steps=600, batch_size=48, learning_rate=1e-3, average=0.99, weight_decay=0.05
            ),
        ),
        Part(
            "inpainting",
            ("vae", "clip", "judge", "unet"),
            lambda folder, start, seed: InpaintingRecipe(
                start_from=start or folder / "unet",
                networks=folder,
                seed=seed,
                cache=folder.parent / "cache",
            ),
            LoopConfig(steps=3000, batch_size=32, learning_rate=6e-4, constant=0.3, average=0.998),
        ),
        Part(
            "bsq_vae",
            (),
            lambda _, start, __: BsqVaeRecipe(start_from=start),
            LoopConfig(steps=3000, batch_size=16, learning_rate=1.5e-3, average=0.998),
        ),
        Part(
            "bsq_decoder",
            ("bsq_vae",),
            lambda folder, start, __: BsqVaeRecipe(
                start_from=start or folder / "bsq_vae", name="bsq_decoder", only_decoder=True
            ),
            LoopConfig(steps=2500, batch_size=16, learning_rate=6e-4, constant=0.2, average=0.998),
            installed_as="bsq_vae",  # the same encoder: Infinity needs no other training
        ),
        Part(
            "t5",
            ("clip",),
            lambda folder, start, __: T5Recipe(start_from=start, networks=folder),
            LoopConfig(
                steps=1500, batch_size=96, learning_rate=1e-3, average=0.995, weight_decay=0.03
            ),
        ),
        Part(
            "infinity",
            ("t5", "bsq_vae", "judge"),
            lambda folder, start, seed: InfinityRecipe(
                start_from=start, networks=folder, seed=seed, cache=folder.parent / "cache"
            ),
            LoopConfig(
                steps=4200, batch_size=32, learning_rate=1.5e-3, constant=0.3, average=0.998
            ),
        ),
    )
}


def find_part(name: str) -> Part:
    """The part of that name.

    Raises:
        InvalidRequestError: there is none.
    """
    if name not in PARTS:
        raise InvalidRequestError(f"no part {name!r} of the zoo; there are {', '.join(PARTS)}")
    return PARTS[name]


def check_needs(part: Part, exported: Path) -> None:
    """Whether everything is there that the part's recipe reads.

    Raises:
        ModelSetError: naming what to train first.
    """
    missing = [name for name in part.needs if not (exported / name).is_dir()]
    if missing:
        raise ModelSetError(
            f"training {part.name} needs {', '.join(missing)} in {exported}: train that first"
        )


def install(exported: Path, folder: Path) -> None:
    """Copy exported parts into a model-set folder and write its manifest with all digests.

    A folder that is new has the world's tokenizer as well, which no training makes.

    Raises:
        ModelSetError: a decoder was trained on another encoder's bits than those that are there.
    """
    _check_decoder(exported)
    for name, part in PARTS.items():
        target = folder / part.folder
        if part.shipped and (exported / name).is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(exported / name, target)
            _forget_origin(target / "config.json")
    if not (folder / "tokenizer").is_dir():
        write_tokenizer(folder / "tokenizer")
    looks = any((folder / name).is_dir() for name in ("dino", "caption_vit"))
    regions = looks and (folder / "inpainting").is_dir()
    whole = all((folder / name).is_dir() for name in ("infinity", "bsq_vae", "t5"))
    infinity = scenes_infinity_spec(folder).facts if whole else None
    spec = scenes_spec(regions=regions, infinity=infinity)
    write_manifest(folder, spec, defaults="scenes", licence=_LICENCE, source=_SOURCE)


def _check_decoder(exported: Path) -> None:
    """A decoder of its own stands in for its autoencoder: their bits must be the same."""
    files = [exported / name / "model.safetensors" for name in ("bsq_vae", "bsq_decoder")]
    if not all(file.is_file() for file in files):
        return
    whole, own = (load_file(file) for file in files)
    encoders = [name for name in whole if name.startswith("encoder.")]
    if any(not torch.equal(whole[name], own[name]) for name in encoders):
        raise ModelSetError(
            f"{files[1].parent} was trained with another encoder than that of {files[0].parent}: "
            "train bsq_decoder again, or remove its folder"
        )


def _forget_origin(config: Path) -> None:
    """Libraries note the path that weights were loaded from; it means nothing elsewhere."""
    if config.is_file():
        fields = json.loads(config.read_text(encoding="utf-8"))
        fields.pop("_name_or_path", None)
        config.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
