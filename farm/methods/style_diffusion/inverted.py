"""What stage 1 leaves behind, half-way or finished, as tensors that safetensors can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
        image_tokens: E(x); none where no values are learned.
        source_embeds: the source prompt's embeddings.
        uncond_embeds: the empty prompt's.
        chain: latents of the source as it is sampled while editing, noisiest first: one more than
            timesteps done. The last of all is the reconstruction.
        token_maps: where each token of the source was looked at, by timestep done.
        contexts: learned embeddings by timestep done; none unless embeddings are learned.
        networks: trained mapping networks, noisiest timestep first.
        losses: total loss before the last optimiser step of each timestep.
        executed: optimiser steps of each timestep.
    """

    trajectory: Float[Tensor, "levels channels height width"]
    image_tokens: Float[Tensor, "image_tokens embed"]
    source_embeds: Float[Tensor, "tokens embed"]
    uncond_embeds: Float[Tensor, "tokens embed"]
    chain: Float[Tensor, "chain_levels channels height width"]
    token_maps: Float[Tensor, "done pixels tokens"]
    contexts: Float[Tensor, "contexts tokens embed"]
    networks: tuple[State, ...] = ()
    losses: tuple[float, ...] = ()
    executed: tuple[int, ...] = ()

    @property
    def index(self) -> int:
        """The timestep that the source has come to; T when it has come to its end."""
        return len(self.chain) - 1

    @property
    def latents(self) -> Float[Tensor, "channels height width"]:
        """Where the source is."""
        return self.chain[-1]

    def moved(
        self, latents: Float[Tensor, "channels height width"], maps: Float[Tensor, "pixels tokens"]
    ) -> "InversionState":
        """The state after a move of the source."""
        return replace(
            self,
            chain=torch.cat([self.chain, latents[None]]),
            token_maps=torch.cat([self.token_maps, maps[None]]),
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it by name; networks are stacked, `[timesteps so far, …]`."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors |= {
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
                **{name: tensors[name] for name in _TENSORS},
                networks=tuple(unstack(stacked)),
                losses=tuple(tensors["losses"].tolist()),
                executed=tuple(tensors["executed"].tolist()),
            )
        except KeyError as error:
            raise CorruptArtifactError(
                f"stored inversion state has no {error.args[0]!r}, only {sorted(tensors)}: "
                "delete it and run the inversion again"
            ) from error
        trained = {len(state.losses), len(state.executed)}
        trained |= {n for n in (len(state.networks), len(state.contexts)) if n}
        levels = len(state.trajectory)
        sound = len(trained) == 1 and max(trained) < levels
        if not (sound and 0 <= state.index == len(state.token_maps) < levels):
            raise CorruptArtifactError(
                f"stored inversion state has {len(state.networks)} networks, "
                f"{len(state.contexts)} contexts, {len(state.losses)} losses, {state.index} "
                f"moves and {levels} levels, which do not belong together: "
                "delete it and run the inversion again"
            )
        return state


_TENSORS = (
    "trajectory",
    "image_tokens",
    "source_embeds",
    "uncond_embeds",
    "chain",
    "token_maps",
    "contexts",
)


def fresh_state(
    *,
    trajectory: Float[Tensor, "levels channels height width"],
    image_tokens: Float[Tensor, "image_tokens embed"],
    source_embeds: Float[Tensor, "tokens embed"],
    uncond_embeds: Float[Tensor, "tokens embed"],
    map_size: int,
) -> InversionState:
    """Before the first timestep: the source at the end of its trajectory, nothing trained."""
    return InversionState(
        trajectory=trajectory,
        image_tokens=image_tokens,
        source_embeds=source_embeds,
        uncond_embeds=uncond_embeds,
        chain=trajectory[-1:],
        token_maps=torch.empty(0, map_size**2, len(source_embeds)),
        contexts=source_embeds[None][:0],
    )


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
                f"stored inversion went {state.index} moves, but {config.num_steps} timesteps "
                "are expected: delete it and run the inversion again"
            )
        return inversion
