"""What the methods ask of a frozen latent-diffusion model, near or far.

`DiffusionClient` turns each question into a `farm.calls.Call`; the operations of the same names
live in `farm.backbones.operations`. Tensors here have no batch axis: batching is the executor's
business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from farm.calls import Answer, Call, Executor, far_losses, run
from farm.model_spec import ModelSpec

Latents = Float[Tensor, "channels height width"]
Embeds = Float[Tensor, "tokens embed"]


@dataclass(frozen=True)
class NoiseQuery:
    """One prediction of noise: `latents` at `timestep` under the prompt `embeds`."""

    latents: Latents
    timestep: int
    embeds: Embeds
    """Input of the keys, and of the values unless `value_embeds` is given."""
    value_embeds: Embeds | None = None


@dataclass(frozen=True)
class ValueQuery:
    """One training step of the value input (StyleDiffusion spec §6): everything but the leaf."""

    latents: Latents
    timestep: int
    embeds: Embeds
    noise_uncond: Latents
    guidance_scale: float
    alpha: float
    """alphas_cumprod at `timestep`."""
    alpha_prev: float
    """alphas_cumprod at the timestep that the move arrives at."""
    target_latents: Latents
    """Where inversion was after this move."""
    map_latents: Latents
    """Latents at which inversion recorded the target attention maps; the maps follow from these,
    `map_timestep` and `embeds`, so they never travel: the far side keeps or recomputes them."""
    map_timestep: int
    attention_weight: float


@dataclass(frozen=True)
class ValueLoss:
    """Loss of a training step: a node of the autograd graph, and its two parts."""

    loss: Float[Tensor, ""]
    latent_loss: float
    attention_loss: float


@dataclass(frozen=True)
class ContextQuery:
    """One training step of one branch's embeddings: everything but the leaf."""

    latents: Latents
    timestep: int
    other_noise: Latents
    """Noise of the branch that is not trained."""
    weight: float
    """Of the trained branch in the guided noise; the other has the rest of 1."""
    alpha: float
    alpha_prev: float
    target_latents: Latents


@dataclass(frozen=True)
class SourceNoise:
    """Noise of a source, and where each token was looked at."""

    noise: Latents
    maps: Float[Tensor, "pixels tokens"]
    """Mean over recorded layers and heads."""


@dataclass(frozen=True)
class SourceRow:
    """What the source of an edit sees in a step."""

    latents: Latents
    embeds: Embeds
    value_embeds: Embeds


@dataclass(frozen=True)
class EditQuery:
    """One editing step of one target; see `edit_noises`."""

    latents: Latents
    timestep: int
    embeds: Embeds
    uncond_embeds: Embeds
    """Of target and source."""
    value_embeds: Embeds
    source: SourceRow
    mapper: Float[Tensor, "tokens tokens"]
    """Column n says which source tokens' maps make target token n's map."""
    refine_alpha: Float[Tensor, " tokens"]
    """1 where a target token has a counterpart in the source, 0 where its own map is used."""
    equalizer: Float[Tensor, " tokens"]
    cross_alpha: Float[Tensor, " tokens"]
    """1 where a target token's map is replaced in this step (its window is open)."""
    self_active: bool
    uncond_self_active: bool
    score_tokens: Float[Tensor, "sets tokens"] | None
    """Sets of tokens, 1 where a token belongs to the set, whose attention is asked for."""


@dataclass(frozen=True)
class EditNoise:
    """Noise of a target without and with its prompt, and the attention of the sets of tokens."""

    uncond: Latents
    cond: Latents
    scores: Float[Tensor, "sets size size"] | None
    """Mean over recorded layers and heads of the sum over a set's tokens, after editing."""


class DiffusionClient:
    """Questions to a frozen diffusion model, answered by an executor.

    Args:
        executor: in this process or an actor.
        spec: shapes and constants of the model.
        alone: compute every call in a batch of its own, so that not even rounding depends on what
            else runs (deterministic mode).
    """

    def __init__(self, executor: Executor, spec: ModelSpec, *, alone: bool = False) -> None:
        self.spec = spec
        self._executor = executor
        self._static = {"alone": True} if alone else {}

    def embed_prompt(self, ids: Sequence[int]) -> Embeds:
        """Last hidden state of the text encoder for padded token ids."""
        call = self._call("clip.embed_tokens", {"ids": np.asarray(ids, dtype=np.int64)})
        return _tensor(run(self._executor, call), "embeds")

    def image_tokens(
        self, image: Float[Tensor, "3 image_height image_width"]
    ) -> Float[Tensor, "image_tokens embed"]:
        """All tokens of the image encoder after its last norm, unprojected; image in [0, 1]."""
        return _tensor(
            run(self._executor, self._call("clip.image_tokens", {"image": image})), "tokens"
        )

    def encode(self, image: Float[Tensor, "3 image_height image_width"]) -> Latents:
        """Scaled posterior mean of the autoencoder; image in [0, 1]."""
        return _tensor(run(self._executor, self._call("vae.encode", {"image": image})), "latents")

    def decode(self, latents: Latents) -> Float[Tensor, "3 image_height image_width"]:
        """Picture in [0, 1] for scaled latents."""
        return _tensor(run(self._executor, self._call("vae.decode", {"latents": latents})), "image")

    def noise(self, query: NoiseQuery, *, keep_maps: bool = False) -> Latents:
        """Predicted noise; with `keep_maps` the far side remembers the cross-attention maps."""
        return self.noises([query], keep_maps=keep_maps)[0]

    def noises(self, queries: Sequence[NoiseQuery], *, keep_maps: bool = False) -> list[Latents]:
        """Predicted noise for each query; all are sent before any answer is awaited."""
        calls = [self._call("unet.noise", _noise_arrays(q), keep_maps=keep_maps) for q in queries]
        return [_tensor(answer, "noise") for answer in self._executor.run_all(calls)]

    def source_noises(self, queries: Sequence[NoiseQuery]) -> list[SourceNoise]:
        """Predicted noise of an edit's sources; the far side remembers where they look."""
        calls: list[Call] = []
        for query in queries:
            values = query.embeds if query.value_embeds is None else query.value_embeds
            arrays = _noise_arrays(query) | {"value_embeds": values}
            calls.append(self._call("unet.source_noise", arrays))
        answers = self._executor.run_all(calls)
        return [SourceNoise(_tensor(a, "noise"), _tensor(a, "maps")) for a in answers]

    def value_loss(self, query: ValueQuery, value_embeds: Embeds) -> ValueLoss:
        """`value_losses` of a single query."""
        return self.value_losses([query], value_embeds[None])[0]

    def value_losses(
        self, queries: Sequence[ValueQuery], value_embeds: Float[Tensor, "queries tokens embed"]
    ) -> list[ValueLoss]:
        """Losses of training steps, differentiable with respect to each `value_embeds`.

        `L = mean((z' - target)^2) + attention_weight * sum over layers of mean((A - A_target)^2)`
        (StyleDiffusion spec §6), where z' is the guided DDIM move. All are sent before any answer
        is awaited.
        """
        calls: list[Call] = []
        for query in queries:
            arrays = {
                "latents": query.latents,
                "timestep": np.asarray(query.timestep, dtype=np.int64),
                "embeds": query.embeds,
                "noise_uncond": query.noise_uncond,
                "guidance_scale": _scalar(query.guidance_scale),
                "alpha": _scalar(query.alpha),
                "alpha_prev": _scalar(query.alpha_prev),
                "target_latents": query.target_latents,
                "map_latents": query.map_latents,
                "map_timestep": np.asarray(query.map_timestep, dtype=np.int64),
                "attention_weight": _scalar(query.attention_weight),
            }
            attention = query.attention_weight > 0
            calls.append(self._call("unet.value_loss", arrays, attention=attention))
        losses, answers = far_losses(self._executor, calls, "value_embeds", value_embeds)
        return [
            ValueLoss(
                loss, float(answer.arrays["latent_loss"]), float(answer.arrays["attention_loss"])
            )
            for loss, answer in zip(losses, answers, strict=True)
        ]

    def context_loss(self, query: ContextQuery, embeds: Embeds) -> Float[Tensor, ""]:
        """`mean((z' - target)^2)` of a guided move, differentiable with respect to `embeds`."""
        arrays = {
            "latents": query.latents,
            "timestep": np.asarray(query.timestep, dtype=np.int64),
            "other_noise": query.other_noise,
            "weight": _scalar(query.weight),
            "alpha": _scalar(query.alpha),
            "alpha_prev": _scalar(query.alpha_prev),
            "target_latents": query.target_latents,
        }
        call = self._call("unet.context_loss", arrays)
        losses, _ = far_losses(self._executor, [call], "embeds", embeds[None])
        return losses[0]

    def edit_noises(self, queries: Sequence[EditQuery]) -> list[EditNoise]:
        """Noise of targets under attention control (StyleDiffusion spec §7).

        A target's cross map is `a · eq · (r · A_source @ mapper + (1 - r) · A_target) + (1 - a) ·
        A_target` with a = cross_alpha, r = refine_alpha; its self-attention is the source's where
        active and no larger than `spec.self_replace_size`. The unconditional branch keeps its own
        cross-attention. A source costs nothing where the far side remembers it (`source_noises`),
        or where nothing of it is taken; else one forward a branch, once for all its targets.
        """
        calls: list[Call] = []
        for query in queries:
            arrays = {
                "latents": query.latents,
                "timestep": np.asarray(query.timestep, dtype=np.int64),
                "embeds": query.embeds,
                "uncond_embeds": query.uncond_embeds,
                "value_embeds": query.value_embeds,
                "source_latents": query.source.latents,
                "source_embeds": query.source.embeds,
                "source_value_embeds": query.source.value_embeds,
                "mapper": query.mapper,
                "refine_alpha": query.refine_alpha,
                "equalizer": query.equalizer,
                "cross_alpha": query.cross_alpha,
                "self_active": np.asarray(query.self_active),
                "uncond_self_active": np.asarray(query.uncond_self_active),
            }
            if query.score_tokens is not None:
                arrays["score_tokens"] = query.score_tokens
            calls.append(self._call("unet.edit_noise", arrays))
        return [
            EditNoise(
                _tensor(answer, "noise_uncond"),
                _tensor(answer, "noise_cond"),
                _tensor(answer, "scores") if "scores" in answer.arrays else None,
            )
            for answer in self._executor.run_all(calls)
        ]

    def _call(self, op: str, arrays: Mapping[str, Tensor | np.ndarray], **static: bool) -> Call:
        plain = {n: a.detach().numpy() if isinstance(a, Tensor) else a for n, a in arrays.items()}
        return Call(op, plain, {**self._static, **static})


def _noise_arrays(query: NoiseQuery) -> dict[str, Tensor | np.ndarray]:
    arrays = {
        "latents": query.latents,
        "timestep": np.asarray(query.timestep, dtype=np.int64),
        "embeds": query.embeds,
    }
    return arrays if query.value_embeds is None else arrays | {"value_embeds": query.value_embeds}


def _scalar(value: float) -> np.ndarray:
    return np.asarray(value, dtype=np.float32)


def _tensor(answer: Answer, name: str) -> Tensor:
    array = answer.arrays[name]
    return torch.from_numpy(array if array.flags.writeable else array.copy())
