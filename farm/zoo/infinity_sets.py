"""Model-set folders that get an Infinity: what their manifest says of it."""

from pathlib import Path

from farm.backbones.infinity.loading import load_transformer, load_vae, warn_of_pairing
from farm.backbones.infinity.networks import TEXT, TRANSFORMER, VAE, spec_of
from farm.backbones.infinity.schedules import Size
from farm.backbones.infinity.spec import InfinitySpec
from farm.zoo.model_sets import has_manifest, open_model_set, write_manifest


def state_infinity(folder: Path, size: Size) -> InfinitySpec | None:
    """Let a model set say that it has an Infinity, once all three networks of one are there.

    Args:
        folder: of the model set.
        size: of its pictures.

    Returns:
        What is stated from now on; None while a network is missing, or there is no manifest.

    Raises:
        ModelSetError: the networks are broken, or do not fit together.
    """
    if not has_manifest(folder) or not all((folder / n).is_dir() for n in (TRANSFORMER, VAE, TEXT)):
        return None
    manifest = open_model_set(str(folder)).manifest
    sizes, vae = (
        load_transformer(folder / TRANSFORMER, dtype=None).config,
        load_vae(folder / VAE).config,
    )
    warn_of_pairing(sizes, vae, folder / VAE)
    stated = spec_of(manifest.spec.name, sizes, vae, size=size)
    write_manifest(
        folder,
        manifest.spec.model_copy(update={"infinity": stated.facts}),
        defaults=manifest.defaults,
        licence=manifest.licence,
        source=manifest.source,
        sources=manifest.sources,
    )
    return stated
