"""A tiny Infinity model set of the real classes: random, deterministic, made in a moment."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from farm.backbones.infinity.bsq_vae import BsqVae, BsqVaeConfig
from farm.backbones.infinity.config import InfinityConfig
from farm.backbones.infinity.loading import GROUPS
from farm.backbones.infinity.networks import TEXT, TRANSFORMER, VAE, InfinityNetworks
from farm.backbones.infinity.operations import OPERATIONS
from farm.backbones.infinity.spec import InfinitySpec
from farm.backbones.infinity.text_encoder import T5TextEncoder
from farm.backbones.infinity.tokenizer import TextTokenizer
from farm.backbones.infinity.transformer import Infinity
from farm.calls import Meter
from farm.methods.edit_infinity.client import InfinityClient
from farm.zoo.model_sets import write_manifest
from farm.zoo.recipes.t5 import build_t5, word_tokenizer
from tests.inline import Inline
from tests.tiny import tiny_networks as tiny_diffusion_networks
from tests.tiny import tiny_spec as tiny_diffusion_spec
from tests.tiny import write_tiny_set as write_tiny_diffusion_set
from tests.tiny_regions import tiny_region_networks, tiny_region_spec, write_tiny_region_set

WORDS = (
    *("a", "the", "red", "blue", "cat", "dog", "ball", "and", "on", "grass"),
    *("language", "style", "of", "this", "prompt", "is"),
)
CONFIG = InfinityConfig(
    width=16,
    depth=2,
    heads=2,
    hidden=32,
    token_bits=4,
    text_width=16,
    text_rows=24,
    pool_heads=2,
)
VAE_CONFIG = BsqVaeConfig(
    bits=4, base=8, multipliers=(1, 1, 2), encoder_blocks=1, decoder_blocks=1, groups=4
)
SPEC = InfinitySpec(
    name="tiny",
    width=16,
    depth=2,
    hidden=32,
    text_width=16,
    text_rows=24,
    latent_channels=4,
    stride=4,
    grids=((1, 1), (2, 2), (4, 4)),
)
SCHEDULE = SPEC.schedule("own")


def seeded(module, seed=0):
    """Weights drawn anew, wide enough that no branch is nearly silent; frozen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 25
            drawn = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
            is_scale = "norm" in name and name.endswith("weight")
            parameter.copy_(drawn * 0.3 + 1 if is_scale else drawn)
    return module.requires_grad_(False).eval()


def tiny_transformer(config=CONFIG, seed=0):
    return seeded(Infinity(config), seed)


def tiny_vae(config=VAE_CONFIG, seed=0):
    return seeded(BsqVae(config), seed)


def tiny_t5(seed=0):
    return seeded(build_t5(word_tokenizer(WORDS).get_vocab_size(), 16, 1), seed)


def tiny_networks(seed=0):
    return InfinityNetworks(
        tiny_transformer(seed=seed), tiny_vae(seed=seed), T5TextEncoder(tiny_t5(seed)), SPEC, "cpu"
    )


def tiny_tokenizer(max_tokens=24):
    with TemporaryDirectory() as folder:
        word_tokenizer(WORDS).save(str(Path(folder) / "tokenizer.json"))
        return TextTokenizer(Path(folder), max_tokens)


def tiny_executor(seed=0):
    return Inline(tiny_networks(seed), OPERATIONS)


def metered_client(*, biases=True):
    meter = Meter(tiny_executor())
    return InfinityClient(meter, SPEC, biases=biases), meter


def picture(seed=7, height=16, width=16):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def text_rows(count=5, seed=3):
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


def tiny_whole_spec():
    """A latent-diffusion model's and this Infinity's together."""
    return tiny_diffusion_spec().model_copy(update={"infinity": SPEC.facts})


def tiny_whole_networks(seed=0):
    """What a host of both has."""
    return replace(
        tiny_diffusion_networks(tiny_whole_spec(), seed=seed), infinity=tiny_networks(seed)
    )


def write_tiny_whole_set(folder):
    """A model-set folder of both, with its manifest."""
    write_tiny_diffusion_set(folder)
    write_tiny_set(folder)
    write_manifest(
        folder, tiny_whole_spec(), defaults="scenes", licence="Apache-2.0", source="tests"
    )


def tiny_full_spec():
    """A latent-diffusion model's, Learnable Regions' and this Infinity's together."""
    return tiny_region_spec().model_copy(update={"infinity": SPEC.facts})


def tiny_full_networks(seed=0):
    """What a host of all of them has."""
    regions = tiny_region_networks(tiny_full_spec(), seed=seed)
    return replace(regions, infinity=tiny_networks(seed))


def write_tiny_full_set(folder):
    """A model-set folder of all of them, with its manifest."""
    write_tiny_region_set(folder)
    write_tiny_set(folder)
    write_manifest(
        folder, tiny_full_spec(), defaults="scenes", licence="Apache-2.0", source="tests"
    )


def write_tiny_set(folder):
    """The folders of these networks."""
    transformer = {n: t.contiguous() for n, t in tiny_transformer().state_dict().items()}
    vae = {n: t.contiguous() for n, t in tiny_vae().state_dict().items()}
    for name, state, about in (
        (TRANSFORMER, transformer, {}),
        (VAE, vae, {GROUPS: str(VAE_CONFIG.groups)}),
    ):
        (folder / name).mkdir(parents=True)
        save_file(state, folder / name / "model.safetensors", metadata={"format": "pt", **about})
    tiny_t5().save_pretrained(folder / TEXT)
    word_tokenizer(WORDS).save(str(folder / TEXT / "tokenizer.json"))
