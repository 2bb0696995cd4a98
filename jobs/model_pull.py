"""Fetch released checkpoints from the hub and put a model set together from them.

    editfarm models pull sd15
    python -m jobs.model_pull sd15+infinity-2b --to /models --variant fp16

What lies in the hub's cache is not fetched again, and nothing is fetched at all with
HF_HUB_OFFLINE=1. The set's manifest records the commit of each part and the digest of each file.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from farm.backbones.weight_files import weights_file
from farm.errors import ModelSetError, UnavailableError
from farm.zoo.checkpoints import Checkpoint
from farm.zoo.infinity_sets import state_infinity
from farm.zoo.model_sets import (
    ModelSet,
    PartSource,
    has_manifest,
    models_folder,
    open_model_set,
    write_manifest,
)
from farm.zoo.released_sets import Source, bytes_of, checkpoints_of, recipes_of, spec_for
from jobs.console import FarmCommand, command_app, say
from jobs.converting import write_checkpoint, write_network, write_unpickled

Variant = Literal["full", "fp16"]
Fetch: TypeAlias = Callable[[str, str | None, Sequence[str]], Path]
"""Repository, revision and patterns of files → folder that has what there is of them."""

_OTHER: Mapping[Variant, Variant] = {"full": "fp16", "fp16": "full"}
_WORDS: Mapping[Variant, str] = {"full": "full", "fp16": "half"}
_STEMS = ("model", "diffusion_pytorch_model")
_TOKENIZER = (
    *("tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "tokenizer.json"),
)
_PICKLES = ("pytorch_model.bin", "diffusion_pytorch_model.bin")
"""Of transformers' networks and of diffusers'."""
_CONVERTED = ("t5", "dino")
"""Parts that are written anew: the encoder alone, in bfloat16; how DINO resizes its positions."""

app = command_app()


@app.command(cls=FarmCommand)
def pull_command(
    name: Annotated[str, typer.Argument(help="A set of released checkpoints, e.g. sd15+regions.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder of model sets. [$EDITFARM_MODELS, or the cache]")
    ] = None,
    variant: Annotated[Variant, typer.Option(help="Of Stable Diffusion's weights.")] = "full",
    safety_checker: Annotated[
        bool, typer.Option(help="Keep Stable Diffusion's safety checker, where there is one.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be fetched.")
    ] = False,
) -> None:
    """Fetch released checkpoints from the hub as a model set."""
    folder = (to or models_folder()) / name
    if dry_run:
        _show_plan(name, folder)
        return
    if has_manifest(folder):
        open_model_set(str(folder)).verify()
        say(f"{folder} is there, all digests match")
        return
    found = pull(name, folder, variant=variant, safety_checker=safety_checker)
    say(f"{found.folder}: {len(found.digests)} weight files; use it as --model-set {name}")


def _show_plan(name: str, folder: Path) -> None:
    """What a pull would fetch; the hub's cache is not asked."""
    if has_manifest(folder):
        say(f"{folder} is there: its digests would be compared, nothing fetched")
        return
    for one in checkpoints_of(name).values():
        say(f"{one.repository}: {one.bytes / 1e9:.1f} GB as published, {one.licence}")
    say(f"into {folder}: at most {bytes_of(name) / 1e9:.1f} GB, less what the hub's cache has")


def from_hub(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Files of a repository, with the hub's own progress on stderr.

    Raises:
        ModelSetError: the hub has no such repository, or shows it to those alone who agreed.
        UnavailableError: the hub does not answer, or must not be asked.
    """
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except RepositoryNotFoundError as error:
        raise ModelSetError(f"{repository} is not on the hub, or not for everybody") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = "HF_HUB_OFFLINE is set" if _is_offline() else f"the hub did not answer ({error})"
        raise UnavailableError(
            f"{repository} is not in the hub's cache, and {why}: fetch it where there is a "
            "network, or copy the cache (HF_HOME) or the whole model set here"
        ) from error


def pull(
    name: str,
    folder: Path,
    *,
    variant: Variant = "full",
    safety_checker: bool = True,
    fetch: Fetch = from_hub,
) -> ModelSet:
    """Put a set of released checkpoints together in a folder; the manifest comes last.

    A folder that an earlier try left without a manifest is completed.

    Args:
        name: of the set.
        folder: where to; on the same disk as the hub's cache its files are shared, not copied.
        variant: which precision of Stable Diffusion's weights.
        safety_checker: whether edits are shown to it.
        fetch: where files come from.

    Raises:
        ModelSetError: no such set, or a checkpoint is not what it should be.
        UnavailableError: no mirror answers.
    """
    recipes = recipes_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    assembly = _Assembly(folder, variant, safety_checker=safety_checker, fetch=fetch)
    sources: dict[str, PartSource] = {}
    for recipe in recipes:
        for source in recipe.sources:
            sources |= assembly.add(source)
        if recipe.infinity is not None:
            sources |= assembly.add_infinity(checkpoints_of(name)[recipe.infinity])
    spec = spec_for(name, folder)
    write_manifest(
        folder,
        spec.model_copy(update={"safety": spec.safety and safety_checker}),
        defaults="paper",
        licence="; ".join(sorted({source.licence for source in sources.values()})),
        source="released checkpoints, fetched from the hub",
        sources=sources,
    )
    for recipe in recipes:
        if recipe.infinity is not None:
            state_infinity(folder, recipe.size)
    return open_model_set(str(folder))


@dataclass(frozen=True)
class _Assembly:
    """A model set while it is put together."""

    folder: Path
    variant: Variant
    safety_checker: bool
    fetch: Fetch

    def add(self, source: Source) -> dict[str, PartSource]:
        """The folders of one checkpoint."""
        found: dict[str, PartSource] = {}
        for part, inside in source.parts.items():
            if part == "safety_checker" and not self.safety_checker:
                continue
            fetched, found[part] = self._network(source.about, inside)
            self._place(part, fetched, is_own_format=not inside)
        if source.tokenizer:
            more = [f"tokenizer/{file}" for file in _TOKENIZER] + ["scheduler/*.json"]
            fetched, record = self._fetched(source.about, more)
            for extra in ("tokenizer", "scheduler"):
                _link(fetched / extra, self.folder / extra)
                found[extra] = record
        if "t5" in source.parts:
            fetched, _ = self._fetched(source.about, ["tokenizer.json"])
            _share(fetched / "tokenizer.json", self.folder / "t5" / "tokenizer.json")
        return found

    def add_infinity(self, checkpoint: Checkpoint) -> dict[str, PartSource]:
        """Transformer and autoencoder, converted."""
        found: dict[str, PartSource] = {}
        for file, part in zip(checkpoint.files, ("infinity", "bsq_vae"), strict=True):
            fetched, found[part] = self._fetched(checkpoint, [file, f"{file}/*"])
            if not any((self.folder / part).glob("*.safetensors")):
                write_checkpoint(fetched / file, self.folder, "bf16")
        return found

    def _network(self, about: Checkpoint, inside: str) -> tuple[Path, PartSource]:
        """A network's folder in a repository: safetensors of one variant, or a pickle.

        Half precision goes before a pickle: Stable Diffusion 1.5's inpainting UNet is published in
        full precision as a pickle alone.
        """
        for variant in (self.variant, _OTHER[self.variant]) if inside else (self.variant,):
            wanted = _patterns(inside, variant)
            fetched, record = self._fetched(about, wanted)
            if any(any(fetched.glob(name)) for name in wanted if name.endswith(".safetensors")):
                if variant != self.variant:
                    asked, taken = _WORDS[self.variant], _WORDS[variant]
                    say(
                        f"{record.repository} has no safetensors of {inside} in {asked} precision: "
                        f"taking those in {taken} precision"
                    )
                return fetched / inside, record
        pickled = [str(Path(inside) / name) for name in ("config.json", *_PICKLES)]
        fetched, record = self._fetched(about, pickled)
        return fetched / inside, record

    def _fetched(self, about: Checkpoint, patterns: Sequence[str]) -> tuple[Path, PartSource]:
        """From the first of the checkpoint's addresses that answers."""
        tries: list[str] = []
        for repository in (about.repository, *about.mirrors):
            try:
                fetched = self.fetch(repository, about.revision, patterns)
            except (ModelSetError, UnavailableError) as error:
                tries.append(error.message)
                continue
            record = PartSource(repository=repository, revision=fetched.name, licence=about.licence)
            return fetched, record
        raise UnavailableError("; ".join(tries))

    def _place(self, part: str, fetched: Path, *, is_own_format: bool) -> None:
        """A network's files in the set's folder, as safetensors.

        Args:
            part: folder in the set.
            fetched: holds the files.
            is_own_format: whether the authors' names and sizes may have to be converted; those of
                Stable Diffusion are the libraries' own.
        """
        target = self.folder / part
        if (target / "config.json").is_file() and any(target.glob("*.safetensors")):
            return
        is_pickled = not any(fetched.glob("*.safetensors"))
        if part in _CONVERTED or (is_pickled and is_own_format):
            write_network(fetched, target)
            return
        if is_pickled:
            write_unpickled(fetched, target)
            return
        weights_file(fetched)  # says what is wrong before anything is there
        _link(fetched, target)


def _patterns(inside: str, variant: Variant) -> list[str]:
    """Files of a network's folder in a repository; of weights those of the variant alone."""
    prefix = f"{inside}/" if inside else ""
    middle = ".fp16" if variant == "fp16" and inside else ""
    names = [f"{stem}{middle}.safetensors" for stem in _STEMS]
    if not inside:  # whole repositories may be in shards
        names += ["model-*-of-*.safetensors", "model.safetensors.index.json"]
    return [f"{prefix}config.json", *(f"{prefix}{name}" for name in names)]


def _link(source: Path, target: Path) -> None:
    """Every file of a folder, sharing its bytes where the disk allows it."""
    if not source.is_dir():
        raise ModelSetError(f"{source.name}/ is not in the checkpoint: is it another layout?")
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in (".json", ".txt", ".safetensors"):
            _share(path, target / path.name)


def _share(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    real = source.resolve()  # the hub's cache is links to files named by their digest
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(real, part)
    except OSError:
        shutil.copyfile(real, part)
    part.replace(target)


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


if __name__ == "__main__":
    app()
