"""The golden set as networks, prompts and inversions; every size is read from the set."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.backbones.tokenizer import PromptTokens
from farm.diffusion import DiffusionClient
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.inverted import Inversion, InversionState, fresh_state
from farm.methods.style_diffusion.mapping_network import State
from farm.methods.style_diffusion.sampling import retrace
from farm.model_spec import ModelSpec
from tests.parity.consumed import Consumed
from tests.parity.golden_networks import golden_networks_of, golden_spec_of

END = 49407  # CLIP's end token, which pads
UNUSED = ("running_mean", "running_var", "num_batches_tracked")
"""Stored with a network by the released program, which never reads them (spec §0.3)."""


def relative(actual: Tensor, expected: Tensor) -> float:
    """Largest deviation over the largest magnitude, as the set's README measures."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def network_states(tensors: Mapping[str, Tensor], count: int) -> tuple[State, ...]:
    """Mapping networks `m0.*` to `m{count - 1}.*` of a file."""
    found: list[State] = []
    for index in range(count):
        prefix = f"m{index}."
        named = {n.removeprefix(prefix): tensors[n] for n in tensors if n.startswith(prefix)}
        found.append({n: value for n, value in named.items() if not n.endswith(UNUSED)})
    return tuple(found)


class GoldenSet:
    """Files, networks and inversions of one set; built when first asked for."""

    def __init__(self, golden: Path) -> None:
        self.golden = golden
        self.consumed = Consumed(golden)
        self.meta = self.consumed.open("meta.json")
        self.ddim = self.consumed.open("ddim.safetensors")
        self.mapping = self.consumed.open("mapping.safetensors")
        self.edits = self.consumed.open("edits.safetensors")

    @cached_property
    def spec(self) -> ModelSpec:
        return golden_spec_of(self.golden)

    @cached_property
    def networks(self) -> Networks:
        """The set's UNet and image encoder; autoencoder and text encoder are tiny stand-ins."""
        self.consumed.names |= {"unet", *(f"image_encoder.{n}" for n in self._encoder_names())}
        return golden_networks_of(
            self.golden / "unet", self.spec, self.golden / "image_encoder.safetensors"
        )

    @cached_property
    def client(self) -> DiffusionClient:
        return DiffusionClient(OperationHost(self.networks), self.spec)

    @cached_property
    def config(self) -> InversionConfig:
        return InversionConfig(
            num_steps=self.meta["T"],
            guidance_scale=self.meta["guidance"],
            inner_steps=self.meta["inner"],
            stop_base=self.meta["early_stop_epsilon"],
        )

    @cached_property
    def tokens(self) -> dict[str, PromptTokens]:
        """Every prompt of `alignment.json` as the set stores its tokens."""
        known: dict[str, PromptTokens] = {}
        for pair in self.consumed.open("alignment.json").values():
            for side in ("source", "target"):
                ids, pieces = pair[f"{side}_tokens"], pair[f"{side}_pieces"]
                padded = (*ids, *[END] * (len(pair["refine_index"]) - len(ids)))
                # a set stores text; the farm's pieces have a character for each byte of it
                inner = tuple(piece.encode().decode("latin-1") for piece in pieces[1:-1])
                known[pair[side]] = PromptTokens(pair[side], padded, inner)
        return known

    @cached_property
    def start(self) -> InversionState:
        """The stored trajectory and features, before any network is trained."""
        return fresh_state(
            trajectory=self.ddim["latents"],
            image_tokens=self.mapping["features"][0],
            source_embeds=self.ddim["ctx_source"][0],
            uncond_embeds=self.ddim["ctx_uncond"][0],
            map_size=self.spec.map_size,
        )

    @cached_property
    def trained(self) -> Inversion:
        """The stored final networks, in the rounded form with which the set's edits were made."""
        count = self.config.num_steps
        states = network_states(self.consumed.open("mapping_final_half.safetensors"), count)
        done = replace(self.start, networks=states, losses=(0.0,) * count, executed=(0,) * count)
        inversion = Inversion(self.meta["source_prompt"], self.config, done)
        return retrace(inversion, self.client)

    def _encoder_names(self) -> list[str]:
        """Weights of OpenAI's image tower; `proj` is the head that E leaves out (spec §3)."""
        known = ("class_embedding", "conv1.", "ln_", "positional_embedding", "proj", "transformer.")
        encoder = self.consumed.open("image_encoder.safetensors")
        return [name for name in encoder if name.startswith(known)]


class FullSet:
    """`full64`: the set's second UNet, which has the block layout of Stable Diffusion 1."""

    def __init__(self, whole: GoldenSet) -> None:
        folder = whole.golden / "full64"
        whole.consumed.names.add("full64/unet")
        self.meta = whole.consumed.open("full64/meta.json")
        self.vectors = whole.consumed.open("full64/edit.safetensors")
        self.spec = golden_spec_of(folder)
        self.networks = golden_networks_of(folder / "unet", self.spec)
        self.client = DiffusionClient(OperationHost(self.networks), self.spec)

    @cached_property
    def inversion(self) -> Inversion:
        """Its networks, from its starting latents; there is no trajectory."""
        count = self.meta["T"]
        state = fresh_state(
            trajectory=self.vectors["z_start"].expand(count + 1, -1, -1, -1),
            image_tokens=self.vectors["features"][0],
            source_embeds=self.vectors["ctx_source"][0],
            uncond_embeds=self.vectors["ctx_uncond"][0],
            map_size=self.spec.map_size,
        )
        state = replace(
            state,
            networks=network_states(self.vectors, count),
            losses=(0.0,) * count,
            executed=(0,) * count,
        )
        config = InversionConfig(num_steps=count)
        return retrace(Inversion(self.meta["prompts"][0], config, state), self.client)


def one_hot(positions: list[int], tokens: int) -> Tensor:
    """1 at some positions."""
    found = torch.zeros(tokens)
    found[positions] = 1
    return found
