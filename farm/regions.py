"""What Learnable Regions asks of frozen networks, near or far: DINO, CLIP, inpainting.

`RegionsClient` turns each question into a `farm.calls.Call`; the operations of the same names live
in `farm.backbones.region_operations`. Tensors here have no batch axis: batching is the executor's
business. What takes a sequence sends all of it before any answer is awaited.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from farm.calls import Answer, Call, Executor, run
from farm.losses.views import Views
from farm.model_spec import ModelSpec
from farm.samplers.ddim import Move

DinoFeature: TypeAlias = Literal["tokens", "keys"]
StructureLayer: TypeAlias = Literal["before_last", "last"]
Image: TypeAlias = Float[Tensor, "3 height width"]


@dataclass(frozen=True)
class DinoAnswer:
    """DINO's view of a picture.

    Attributes:
        attention: of [CLS] to each cell, by head; probabilities, whose rest is [CLS] itself.
        features: tokens or keys of the cells, row by row.
    """

    attention: Float[Tensor, "heads rows columns"]
    features: Float[Tensor, "cells width"]


@dataclass(frozen=True)
class ImageScore:
    """CLIP's view of a picture.

    Attributes:
        embed: in the space shared with texts; not of unit length.
        tokens: of one layer, for structure.
    """

    embed: Float[Tensor, " embed"]
    tokens: Float[Tensor, "places token_width"]


@dataclass(frozen=True)
class InpaintQuery:
    """One DDIM step of a picture with a hole.

    Attributes:
        latents: at `timestep`.
        timestep: what the network is told.
        alpha: alphas_cumprod there.
        alpha_prev: alphas_cumprod where the step ends.
        embeds: of the prompt.
        uncond_embeds: of the empty prompt.
        guidance_scale: 1 is no guidance, and costs half.
        mask: 1 = hole.
        left: latents of the picture with a grey hole.
    """

    latents: Float[Tensor, "channels height width"]
    timestep: int
    alpha: float
    alpha_prev: float
    embeds: Float[Tensor, "tokens embed"]
    uncond_embeds: Float[Tensor, "tokens embed"]
    guidance_scale: float
    mask: Float[Tensor, "1 height width"]
    left: Float[Tensor, "channels height width"]


@dataclass(frozen=True)
class InpaintSample:
    """A row of DDIM steps of a picture with a hole.

    Attributes:
        latents: at the first move's timestep.
        moves: all steps, in order; at least one.
        embeds: of the prompt.
        uncond_embeds: of the empty prompt.
        guidance_scale: 1 is no guidance, and costs half.
        mask: 1 = hole.
        left: latents of the picture with a grey hole.
    """

    latents: Float[Tensor, "channels height width"]
    moves: Sequence[Move]
    embeds: Float[Tensor, "tokens embed"]
    uncond_embeds: Float[Tensor, "tokens embed"]
    guidance_scale: float
    mask: Float[Tensor, "1 height width"]
    left: Float[Tensor, "channels height width"]


class RegionsClient:
    """Questions to DINO, CLIP and an inpainting model, answered by an executor.

    Args:
        executor: in this process or an actor.
        spec: shapes and constants of the networks.
        alone: compute every call in a batch of its own, so that not even rounding depends on what
            else runs (deterministic mode).
    """

    def __init__(self, executor: Executor, spec: ModelSpec, *, alone: bool = False) -> None:
        self.spec = spec
        self._executor = executor
        self._static: dict[str, Hashable] = {"alone": True} if alone else {}

    def dino(
        self, image: Image, *, features: DinoFeature = "tokens", normalise: bool = True
    ) -> DinoAnswer:
        """Last layer's [CLS] attention and features of a picture in [0, 1]."""
        call = self._call(
            "dino.features", {"image": image}, keys=features == "keys", raw=not normalise
        )
        answer = run(self._executor, call)
        return DinoAnswer(_tensor(answer, "attention"), _tensor(answer, "features"))

    def embed_prompt(self, ids: Sequence[int]) -> Float[Tensor, "tokens embed"]:
        """Last hidden state of the inpainting model's text encoder for padded token ids."""
        call = self._call("clip.embed_tokens", {"ids": np.asarray(ids, dtype=np.int64)})
        return _tensor(run(self._executor, call), "embeds")

    def score_text(self, ids: Sequence[int]) -> Float[Tensor, " embed"]:
        """CLIP's projected embedding of padded token ids; not of unit length."""
        call = self._call("scorer.embed_text", {"ids": np.asarray(ids, dtype=np.int64)})
        return _tensor(run(self._executor, call), "embed")

    def score_images(
        self,
        images: Sequence[Image],
        *,
        layer: StructureLayer = "before_last",
        scale: float = 1.0,
    ) -> list[ImageScore]:
        """CLIP's embedding and tokens of pictures in [0, 1], each multiplied by `scale` first."""
        calls = [
            self._call("scorer.image", {"image": image, "scale": _scalar(scale)}, layer=layer)
            for image in images
        ]
        answers = self._executor.run_all(calls)
        return [ImageScore(_tensor(a, "embed"), _tensor(a, "tokens")) for a in answers]

    def score_views(
        self, images: Sequence[Image], views: Views, *, scale: float = 1.0
    ) -> list[Float[Tensor, "views embed"]]:
        """CLIP's embeddings of each picture under each view; times `scale` before the views."""
        calls = [
            self._call("scorer.views", {"image": image, "views": views, "scale": _scalar(scale)})
            for image in images
        ]
        return [_tensor(answer, "embeds") for answer in self._executor.run_all(calls)]

    def relevance(
        self, image: Image, direction: Float[Tensor, " embed"]
    ) -> Float[Tensor, "grid grid"]:
        """How much each patch makes CLIP's embedding point along `direction`; at least 0."""
        call = self._call("scorer.relevance", {"image": image, "direction": direction})
        return _tensor(run(self._executor, call), "relevance")

    def encode(
        self, images: Sequence[Float[Tensor, "3 image_size image_size"]]
    ) -> list[Float[Tensor, "channels height width"]]:
        """Scaled posterior means of the autoencoder; pictures in [0, 1]."""
        calls = [self._call("vae.encode", {"image": image}) for image in images]
        return [_tensor(answer, "latents") for answer in self._executor.run_all(calls)]

    def decode(
        self, latents: Sequence[Float[Tensor, "channels height width"]]
    ) -> list[Float[Tensor, "3 image_size image_size"]]:
        """Pictures in [0, 1] of scaled latents."""
        calls = [self._call("vae.decode", {"latents": one}) for one in latents]
        return [_tensor(answer, "image") for answer in self._executor.run_all(calls)]

    def inpaint(
        self, queries: Sequence[InpaintQuery]
    ) -> list[Float[Tensor, "channels height width"]]:
        """Latents after each query's DDIM step, under guidance."""
        answers = self._executor.run_all([self._inpaint_call(query) for query in queries])
        return [_tensor(answer, "latents") for answer in answers]

    def sample(
        self, queries: Sequence[InpaintSample]
    ) -> list[Float[Tensor, "channels height width"]]:
        """Latents after all moves of each query: what `inpaint` gives, one message instead of many.

        The actor still takes step by step, so others' steps come between and share batches.
        """
        answers = self._executor.run_all([self._sample_call(query) for query in queries])
        return [_tensor(answer, "latents") for answer in answers]

    def _inpaint_call(self, query: InpaintQuery) -> Call:
        moves = {
            "timestep": np.asarray(query.timestep, dtype=np.int64),
            "alpha": _scalar(query.alpha),
            "alpha_prev": _scalar(query.alpha_prev),
        }
        return self._call("inpainting.step", {**moves, **_hole(query)})

    def _sample_call(self, query: InpaintSample) -> Call:
        moves = {
            "timesteps": np.asarray([m.timestep for m in query.moves], dtype=np.int64),
            "alphas": np.asarray([m.alpha for m in query.moves], dtype=np.float32),
            "alphas_prev": np.asarray([m.alpha_to for m in query.moves], dtype=np.float32),
        }
        return self._call("inpainting.sample", {**moves, **_hole(query)})

    def _call(self, op: str, arrays: Mapping[str, Tensor | np.ndarray], **static: Hashable) -> Call:
        plain = {n: a.detach().numpy() if isinstance(a, Tensor) else a for n, a in arrays.items()}
        return Call(op, plain, {**self._static, **static})


def _hole(query: InpaintQuery | InpaintSample) -> dict[str, Tensor | np.ndarray]:
    """What a step needs besides its timestep and levels."""
    arrays: dict[str, Tensor | np.ndarray] = {
        "latents": query.latents,
        "embeds": query.embeds,
        "mask": query.mask,
        "left": query.left,
    }
    if query.guidance_scale != 1:
        arrays["uncond_embeds"] = query.uncond_embeds
        arrays["guidance_scale"] = _scalar(query.guidance_scale)
    return arrays


def _scalar(value: float) -> np.ndarray:
    return np.asarray(value, dtype=np.float32)


def _tensor(answer: Answer, name: str) -> Tensor:
    array = answer.arrays[name]
    return torch.from_numpy(array if array.flags.writeable else array.copy())
