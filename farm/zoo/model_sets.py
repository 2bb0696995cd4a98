"""Model sets: every frozen network of an edit under one name, with its defaults and digests."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from farm.backbones.infinity.spec import InfinitySpec
from farm.backbones.infinity.tokenizer import TextTokenizer
from farm.backbones.tokenizer import PromptTokenizer
from farm.errors import ModelSetError
from farm.methods.edit_infinity import config as edit_infinity
from farm.methods.learnable_regions import config as learnable_regions
from farm.methods.style_diffusion import config as style_diffusion
from farm.model_spec import ModelSpec
from farm.requests import describe
from farm.zoo.released_sets import bytes_of, checkpoints_of, is_released
from farm.zoo.weights import SCENES_FOLDER

MODELS_VARIABLE = "EDITFARM_MODELS"
"""Environment variable: folder in which sets of released checkpoints are looked for by name."""
_MANIFEST = "model_set.json"
_EMBEDDED = {"scenes": SCENES_FOLDER}
_TOWERS = ("text_encoder", "image_encoder")
"""Folders of CLIP's towers where they are apart; elsewhere `clip` holds both."""
_SAFETY = "safety_checker"
_DEFAULTS = {
    "paper": (style_diffusion.paper, learnable_regions.paper, edit_infinity.paper),
    "scenes": (style_diffusion.scenes, learnable_regions.scenes, edit_infinity.scenes),
}


class PartSource(BaseModel):
    """Where a folder of a model set came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str
    revision: str
    """Commit that was fetched; empty: from a file at hand."""
    licence: str


class _Manifest(BaseModel):
    """`model_set.json`: what a model-set folder says about itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: ModelSpec
    defaults: str
    licence: str
    source: str
    digests: dict[str, str]
    """sha256 of each weight file, by path inside the folder."""
    sources: dict[str, PartSource] = {}
    """By folder; empty where `source` says it all."""


@dataclass(frozen=True)
class ModelSet:
    """A folder of networks and what must be known of them before any is loaded."""

    name: str
    folder: Path
    manifest: _Manifest

    @property
    def spec(self) -> ModelSpec:
        return self.manifest.spec

    @property
    def digests(self) -> dict[str, str]:
        """sha256 by weight file, as stated: `verify` compares them with the files."""
        return self.manifest.digests

    def digests_of(self, parts: tuple[str, ...]) -> dict[str, str]:
        """sha256 by weight file of some parts: what a result of theirs depends on.

        A part that is a whole CLIP stands for its towers too, which may have folders of their own;
        and what a safety checker blackens depends on it.
        """
        wanted = {*parts, _SAFETY, *(_TOWERS if "clip" in parts else ())}
        return {name: d for name, d in self.digests.items() if name.split("/")[0] in wanted}

    @property
    def style_diffusion(self) -> style_diffusion.StyleDiffusionConfig:
        """The method's defaults for these networks.

        Raises:
            ModelSetError: the set has no UNet that the method could use.
        """
        if not self.spec.text_to_image:
            raise ModelSetError(
                f"model set {self.name} has an inpainting UNet alone: take sd15, or the method "
                "learnable_regions"
            )
        return _DEFAULTS[self.manifest.defaults][0]()

    @property
    def learnable_regions(self) -> learnable_regions.LearnableRegionsConfig:
        """The method's defaults for these networks."""
        return _DEFAULTS[self.manifest.defaults][1]()

    @property
    def edit_infinity(self) -> edit_infinity.EditInfinityConfig:
        """The method's defaults for these networks: without CLIP there is none to choose by."""
        config = _DEFAULTS[self.manifest.defaults][2]()
        return config if self.spec.regions is not None else config.without_choice()

    @cached_property
    def infinity(self) -> InfinitySpec:
        """What must be known of the set's Infinity.

        Raises:
            ModelSetError: the set has none.
        """
        if self.spec.infinity is None:
            raise ModelSetError(
                f"model set {self.name} has no Infinity (infinity/, bsq_vae/ and t5/): take one "
                "that has, or another method"
            )
        return InfinitySpec.of(self.spec.name, self.spec.infinity)

    @cached_property
    def tokenizer(self) -> PromptTokenizer:
        return PromptTokenizer(self.folder / "tokenizer", self.spec.tokens)

    @cached_property
    def text_tokenizer(self) -> TextTokenizer:
        """Of the text encoder that Infinity listens to.

        Raises:
            ModelSetError: the set has none.
        """
        return TextTokenizer(self.folder / "t5", self.infinity.text_rows)

    def verify(self, told: Callable[[int], None] = lambda _: None) -> None:
        """Compare every weight file with its digest.

        Args:
            told: of the bytes that were read so far, file by file.

        Raises:
            ModelSetError: naming the first file that is missing or differs.
        """
        read = 0
        for name, expected in self.digests.items():
            path = self.folder / name
            if not path.is_file():
                raise ModelSetError(f"model set {self.name}: {path} is missing; fetch it again")
            found = file_digest(path)
            read += path.stat().st_size
            told(read)
            if found != expected:
                raise ModelSetError(
                    f"model set {self.name}: {path} has digest {found[:12]}…, expected "
                    f"{expected[:12]}…; fetch it again"
                )


def file_digest(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def models_folder() -> Path:
    """Where sets of released checkpoints are kept on this machine."""
    return Path(os.environ.get(MODELS_VARIABLE) or Path.home() / ".cache" / "editfarm" / "models")


def open_model_set(name_or_folder: str) -> ModelSet:
    """A model set by its name, or from a local folder that holds a `model_set.json`.

    A name is an embedded set's, or that of released checkpoints (`farm.zoo.released_sets`) which
    were fetched into `models_folder()`. Nothing is fetched here.

    Raises:
        ModelSetError: no such set, or not fetched yet, or its folder does not hold what it must.
    """
    folder = _EMBEDDED.get(name_or_folder, Path(name_or_folder))
    if not has_manifest(folder) and is_released(name_or_folder):
        folder = models_folder() / name_or_folder
        if not has_manifest(folder):
            raise ModelSetError(_how_to_get(name_or_folder))
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        raise ModelSetError(
            f"no model set {name_or_folder!r}: it is neither one of {', '.join(_EMBEDDED)} nor a "
            f"folder with a {_MANIFEST}, nor released checkpoints that `editfarm models list` names"
        )
    try:
        parsed = _Manifest.model_validate_json(manifest.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ModelSetError(f"{manifest}: {describe(error)}") from error
    if parsed.defaults not in _DEFAULTS:
        raise ModelSetError(
            f"{manifest}: defaults {parsed.defaults!r} are none of {', '.join(_DEFAULTS)}"
        )
    return ModelSet(name_or_folder, folder.resolve(), parsed)


def _how_to_get(name: str) -> str:
    """That a released set is not here.

    Raises:
        ModelSetError: there is no such set.
    """
    licences = ", ".join(sorted({c.licence for c in checkpoints_of(name).values()}))
    return (
        f"model set {name} is not in {models_folder()}: fetch it with `editfarm models pull "
        f"{name}` ({bytes_of(name) / 1e9:.1f} GB; {licences}), or set {MODELS_VARIABLE} to the "
        "folder that has it, or give the set's folder"
    )


def has_manifest(folder: Path) -> bool:
    """Whether a folder says that it is a model set."""
    return (folder / _MANIFEST).is_file()


def is_embedded(name: str) -> bool:
    """Whether a model set comes with the package."""
    return name in _EMBEDDED


def list_model_sets() -> list[ModelSet]:
    """The model sets at hand: embedded ones, and those that were fetched by name."""
    folder = models_folder()
    fetched = sorted(path.parent.name for path in folder.glob(f"*/{_MANIFEST}"))
    return [open_model_set(name) for name in (*_EMBEDDED, *filter(is_released, fetched))]


def write_manifest(
    folder: Path,
    spec: ModelSpec,
    *,
    defaults: str,
    licence: str,
    source: str,
    sources: Mapping[str, PartSource] | None = None,
    digests: Mapping[str, str] | None = None,
) -> None:
    """Write `model_set.json` with the digests of all weight files in the folder, unless given."""
    if digests is None:
        digests = {
            str(path.relative_to(folder)): file_digest(path)
            for path in sorted(folder.rglob("*.safetensors"))
        }
    manifest = _Manifest(
        spec=spec,
        defaults=defaults,
        licence=licence,
        source=source,
        digests=dict(digests),
        sources=dict(sources or {}),
    )
    text = json.dumps(manifest.model_dump(), indent=2) + "\n"
    part = folder / f".{_MANIFEST}.part"
    part.write_text(text, encoding="utf-8")
    part.replace(folder / _MANIFEST)  # whoever sees it finds a whole one
