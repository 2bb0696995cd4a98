"""What stage 1 leaves behind, half-way or finished, as tensors that safetensors can hold."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from farm.errors import CorruptArtifactError
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.mapping_network import State, stack, unstack

_NETWORKS = "mapping_networks."


@dataclass(frozen=True)
class InversionState:
    """Stage 1 between two timesteps. Tensors are shared with later states and never changed.

    Attributes:
        trajectory: latents of DDIM inversion, level 0 clean, T + 1 of them.
        image_tokens: E(x).
        source_embeds: the source prompt's embeddings.
        uncond_embeds: the empty prompt's.
        latents: where the optimised chain is; after the last timestep, the reconstruction.
        networks: trained mapping networks, noisiest timestep first.
        losses: total loss before the last optimiser step of each timestep.
        executed: optimiser steps of each timestep.
    """

    trajectory: Float[Tensor, "levels channels height width"]
    image_tokens: Float[Tensor, "image_tokens embed"]
    source_embeds: Float[Tensor, "tokens embed"]
    uncond_embeds: Float[Tensor, "tokens embed"]
    latents: Float[Tensor, "channels height width"]
    networks: tuple[State, ...] = ()
    losses: tuple[float, ...] = ()
    executed: tuple[int, ...] = ()

    @property
    def index(self) -> int:
        """The timestep to train next; T when all are trained."""
        return len(self.networks)

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it by name; networks are stacked, `[timesteps so far, …]`."""
        tensors = {
            "trajectory": self.trajectory,
            "image_tokens": self.image_tokens,
            "source_embeds": self.source_embeds,
            "uncond_embeds": self.uncond_embeds,
            "latents": self.latents,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "executed": torch.tensor(self.executed, dtype=torch.int64),
        }
        if self.networks:
            tensors |= {_NETWORKS + name: value for name, value in stack(self.networks).items()}
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "InversionState":
        """Inverse of `to_tensors`.

        Raises:
            CorruptArtifactError: a tensor is missing, or their lengths contradict each other.
        """
        stacked = {
            name.removeprefix(_NETWORKS): tensor
            for name, tensor in tensors.items()
            if name.startswith(_NETWORKS)
        }
        try:
            state = cls(
                trajectory=tensors["trajectory"],
                image_tokens=tensors["image_tokens"],
                source_embeds=tensors["source_embeds"],
                uncond_embeds=tensors["uncond_embeds"],
                latents=tensors["latents"],
                networks=tuple(unstack(stacked)),
                losses=tuple(tensors["losses"].tolist()),
                executed=tuple(tensors["executed"].tolist()),
            )
        except KeyError as error:
            raise CorruptArtifactError(
                f"stored inversion state has no {error.args[0]!r}, only {sorted(tensors)}: "
                "delete it and run the inversion again"
            ) from error
        if not state.index == len(state.losses) == len(state.executed) < len(state.trajectory):
            raise CorruptArtifactError(
                f"stored inversion state has {state.index} networks, {len(state.losses)} losses "
                f"and {len(state.trajectory)} levels, which do not belong together: "
                "delete it and run the inversion again"
            )
        return state


@dataclass(frozen=True)
class Inversion:
    """The artifact of stage 1: all that any edit of this image and prompt needs.

    Attributes:
        prompt: the source prompt.
        config: what it was made with; editing uses the same timesteps and guidance.
        state: trajectory, embeddings and the networks of all timesteps.
    """

    prompt: str
    config: InversionConfig
    state: InversionState

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors by name; `metadata` goes with them."""
        return self.state.to_tensors()

    def metadata(self) -> dict[str, str]:
        """What is not a tensor, for the header of a safetensors file."""
        return {"prompt": self.prompt, "config": self.config.model_dump_json()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> "Inversion":
        """Inverse of `to_tensors` and `metadata`.

        Raises:
            CorruptArtifactError: something is missing, unreadable or unfinished.
        """
        state = InversionState.from_tensors(tensors)
        try:
            config = InversionConfig.model_validate_json(metadata["config"])
            inversion = cls(metadata["prompt"], config, state)
        except (KeyError, ValidationError) as error:
            raise CorruptArtifactError(
                f"stored inversion's prompt and configuration cannot be read from {metadata!r}: "
                "delete it and run the inversion again"
            ) from error
        if not state.index == config.num_steps == len(state.trajectory) - 1:
            raise CorruptArtifactError(
                f"stored inversion has {state.index} networks, but {config.num_steps} timesteps "
                "are expected: delete it and run the inversion again"
            )
        return inversion
