"""Deterministic DDIM (arXiv:2010.02502, eq. 12 with sigma 0) in both directions."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from farm.errors import InvalidRequestError
from farm.model_spec import ModelSpec


@dataclass(frozen=True)
class Move:
    """One step between two noise levels.

    Attributes:
        timestep: what the network is told.
        alpha: alphas_cumprod where the latents are, in (0, 1].
        alpha_to: alphas_cumprod where they go.
    """

    timestep: int
    alpha: float
    alpha_to: float


@runtime_checkable
class Denoiser(Protocol):
    """Predicted noise of latents at a timestep."""

    def __call__(
        self, latents: Float[Tensor, "*shape"], timestep: int
    ) -> Float[Tensor, "*shape"]: ...


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise levels of a diffusion model, as diffusers' `scaled_linear` with leading timesteps.

    Attributes:
        alphas_cumprod: float32, falling, one per training timestep.
        steps_offset: added to every timestep (StyleDiffusion spec §0.1).
    """

    alphas_cumprod: Float[Tensor, " train_steps"]
    steps_offset: int

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> "NoiseSchedule":
        """The schedule of a model; float32 throughout, so equal to diffusers' to the last bit."""
        roots = torch.linspace(
            spec.beta_start**0.5, spec.beta_end**0.5, spec.num_train_timesteps, dtype=torch.float32
        )
        return cls((1 - roots**2).cumprod(0), spec.steps_offset)

    def timesteps(self, num_steps: int) -> list[int]:
        """Timesteps of a sampling with `num_steps` steps, noisiest first.

        Raises:
            InvalidRequestError: the schedule has no such timesteps.
        """
        stride = self._stride(num_steps)
        return [stride * k + self.steps_offset for k in reversed(range(num_steps))]

    def alpha_at(self, timestep: int) -> float:
        """alphas_cumprod at a training timestep."""
        return float(self.alphas_cumprod[timestep])

    def alpha_prev(self, timestep: int, num_steps: int) -> float:
        """alphas_cumprod one stride cleaner; the first level of all stands for a clean image."""
        return self.alpha_at(max(timestep - self._stride(num_steps), 0))

    def denoising(self, num_steps: int) -> list[Move]:
        """Moves from noise to image; index i is the paper's i-th denoising step."""
        return [
            Move(t, self.alpha_at(t), self.alpha_prev(t, num_steps))
            for t in self.timesteps(num_steps)
        ]

    def inverting(self, num_steps: int) -> list[Move]:
        """Moves from image to noise: the network is told the timestep that is being moved to."""
        return [
            Move(move.timestep, alpha=move.alpha_to, alpha_to=move.alpha)
            for move in reversed(self.denoising(num_steps))
        ]

    def _stride(self, num_steps: int) -> int:
        levels = len(self.alphas_cumprod)
        # at half the levels the stride is 2, which leaves room for an offset of 1
        if not 1 <= num_steps <= levels // 2:
            raise InvalidRequestError(
                f"num_steps is {num_steps}, but the model has {levels} noise levels: "
                f"use a number from 1 to {levels // 2}"
            )
        return levels // num_steps


def ddim_step(
    latents: Float[Tensor, "*shape"],
    noise: Float[Tensor, "*shape"],
    alpha: float,
    alpha_to: float,
) -> Float[Tensor, "*shape"]:
    """`sqrt(b) (z - sqrt(1 - a) e) / sqrt(a) + sqrt(1 - b) e` with a = alpha, b = alpha_to.

    Denoises where alpha_to > alpha and inverts where it is smaller.
    """
    clean = (latents - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)
    return math.sqrt(alpha_to) * clean + math.sqrt(1 - alpha_to) * noise


def noise_of_velocity(
    velocity: Float[Tensor, "batch channels height width"],
    latents: Float[Tensor, "batch channels height width"],
    alphas: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """The noise in x_t, of a network that predicts the velocity (arXiv:2202.00512).

    v = √ᾱ ε - √(1-ᾱ) x₀ of x_t = √ᾱ x₀ + √(1-ᾱ) ε gives ε = √ᾱ v + √(1-ᾱ) x_t.
    """
    alpha = alphas.view(-1, 1, 1, 1)
    return alpha.sqrt() * velocity + (1 - alpha).sqrt() * latents


def ddim_invert(
    denoiser: Denoiser, latents: Float[Tensor, "*shape"], moves: Sequence[Move]
) -> Iterator[Float[Tensor, "*shape"]]:
    """Latents after each of `moves`, from clean latents to noise (`NoiseSchedule.inverting`)."""
    for move in moves:
        latents = ddim_step(latents, denoiser(latents, move.timestep), move.alpha, move.alpha_to)
        yield latents
