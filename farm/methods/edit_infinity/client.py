"""What the method asks of a frozen Infinity, near or far.

`InfinityClient` turns each question into a `farm.calls.Call`; whoever holds the networks has
operations of the same names. Tensors here have no batch axis: batching is the executor's business.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from farm.calls import Answer, Call, Executor, far_loss, run
from farm.methods.edit_infinity.needs import Layout, Model

Rows = Float[Tensor, "rows text_width"]
Packed = UInt8[Tensor, " bytes"]
Image = Float[Tensor, "3 image_height image_width"]


@dataclass(frozen=True)
class Adapters:
    """LoRA of every feed-forward network as one vector (`lora_format` says in which order)."""

    flat: Float[Tensor, " numbers"]
    rank: int
    scale: float
    """alpha / rank."""


@dataclass(frozen=True)
class TrainingQuery:
    """One training step on a source picture: everything but what is trained.

    Attributes:
        text: text rows, fixed learned ones included.
        features: of the picture, before quantisation.
        flips: bits that the history has wrong, packed as bits are.
        branch_scale: factors of self-attention and feed-forward of each block (dropped paths).
        dropped: whether the text is replaced by no text.
        divergence_weight: of the divergence from the true bits, a sum over them all.
    """

    text: Rows
    features: Float[Tensor, "bits height width"]
    flips: Packed
    branch_scale: Float[Tensor, "blocks 2"]
    dropped: bool
    divergence_weight: float


@dataclass(frozen=True)
class StepLoss:
    """Loss of a training step: a node of the autograd graph, and what it is made of."""

    loss: Float[Tensor, ""]
    weighted: float
    divergence: float
    accuracy: Float[Tensor, " scales"]
    """Share of bits foretold right, by scale."""


@dataclass(frozen=True)
class EditQuery:
    """One generation that keeps a source.

    Attributes:
        text: of the target, learned rows included.
        bits: of the source, packed.
        weight: 1 where the source stays, 0 where the target comes, in latent cells.
        guidance: strength at each scale; 1 everywhere runs without the second branch.
        temperature: at each scale.
        seed: of the draws.
        top_k: 1 takes the likelier value of each bit.
        top_p: values with a probability of at most 1 - top_p are not drawn.
        insertion: where guidance mixes: 0 logits, -m the m-th block from the end.
        adapters: of this source.
        negative: text rows that guidance leads away from; None: no text.
        log_odds: of a one, with which the source's bits are thought to be drawn
            (`InfinityClient.log_odds`): the noise is what gives the source under them.
    """

    text: Rows
    bits: Packed
    weight: Float[Tensor, "height width"]
    guidance: tuple[float, ...]
    temperature: tuple[float, ...]
    seed: int
    top_k: int
    top_p: float
    insertion: int = 0
    adapters: Adapters | None = None
    negative: Float[Tensor, "other_rows text_width"] | None = None
    log_odds: Float[Tensor, "tokens token_bits"] | None = None


@dataclass(frozen=True)
class Accuracy:
    """How well a picture's bits are foretold, each from the true ones before."""

    loss: float
    by_scale: Float[Tensor, " scales"]

    def overall(self, layout: Layout) -> float:
        """Share of all bits."""
        cells = torch.tensor([h * w for h, w in layout.latent_grids], dtype=torch.float32)
        return (self.by_scale @ cells / cells.sum()).item()


class InfinityClient:
    """Questions to a frozen Infinity, answered by an executor.

    Args:
        executor: in this process or an actor.
        model: sizes.
        alone: compute every call in a batch of its own (deterministic mode).
        biases: False leaves out attention biases as the released EditInfinity does (spec §0.1).
    """

    def __init__(
        self, executor: Executor, model: Model, *, alone: bool = False, biases: bool = True
    ) -> None:
        self.model = model
        self._executor = executor
        self._static: dict[str, bool] = {"alone": True} if alone else {}
        self._biases = {"biases": biases}

    def embed(self, ids: Sequence[int]) -> Rows:
        """Last hidden states of the text encoder."""
        call = Call("t5.embed_tokens", {"ids": np.asarray(ids, dtype=np.int64)}, self._static)
        return _tensor(run(self._executor, call), "rows")

    def encode(
        self, image: Image, layout: Layout
    ) -> tuple[Float[Tensor, "bits height width"], Packed]:
        """Features of a picture in [0, 1], and its packed bits."""
        answer = self._ask("bsq.encode", layout, {"image": image})
        return _tensor(answer, "features"), _tensor(answer, "bits")

    def decode(self, bits: Packed, layout: Layout) -> Image:
        """Picture in [0, 1] of packed bits."""
        return _tensor(self._ask("bsq.decode", layout, {"bits": bits}), "image")

    def prompt_loss(self, query: TrainingQuery, prompt: Rows, layout: Layout) -> StepLoss:
        """Loss with `prompt` after the text, differentiable with respect to it."""
        call = self._call("infinity.prompt_loss", layout, _training_arrays(query))
        return _step_loss(*far_loss(self._executor, call, "prompt", prompt))

    def lora_loss(
        self,
        query: TrainingQuery,
        adapters: Adapters,
        layout: Layout,
        *,
        dropout: float,
        dropout_seed: int,
    ) -> StepLoss:
        """Loss with adapters, differentiable with respect to `adapters.flat`."""
        arrays = _training_arrays(query) | {
            "lora_scale": _scalar(adapters.scale),
            "dropout_seed": np.asarray(dropout_seed, dtype=np.int64),
        }
        call = self._call("infinity.lora_loss", layout, arrays, rank=adapters.rank, dropout=dropout)
        return _step_loss(*far_loss(self._executor, call, "lora", adapters.flat))

    def accuracy(
        self, text: Rows, bits: Packed, layout: Layout, adapters: Adapters | None = None
    ) -> Accuracy:
        """How well the model foretells packed bits under a text."""
        arrays: dict[str, Tensor | np.ndarray] = {"text": text, "bits": bits}
        lora, static = _lora_arrays(adapters)
        answer = self._ask("infinity.bit_accuracy", layout, arrays | lora, **static)
        return Accuracy(float(answer.arrays["loss"]), _tensor(answer, "accuracy"))

    def word_attention(
        self, text: Rows, span: Sequence[int], bits: Packed, layout: Layout, size: tuple[int, int]
    ) -> Float[Tensor, "height width"]:
        """Attention to the text rows `span`, mean over them, heads, blocks and scales."""
        watched = torch.zeros(len(text))
        watched[list(span)] = 1
        arrays = {"text": text, "span": watched, "bits": bits}
        height, width = size
        answer = self._ask(
            "infinity.word_attention", layout, arrays, map_height=height, map_width=width
        )
        return _tensor(answer, "map")

    def log_odds(
        self, query: EditQuery, text: Rows, layout: Layout
    ) -> Float[Tensor, "tokens token_bits"]:
        """Log odds of a one with which a query's source would be drawn, were `text` its text."""
        arrays: dict[str, Tensor | np.ndarray] = {"text": text, "bits": query.bits}
        drawing, static = _drawing_arrays(query)
        answer = self._ask("infinity.log_odds", layout, arrays | drawing, **static)
        return _tensor(answer, "log_odds")

    def edit(self, query: EditQuery, layout: Layout) -> tuple[Image, Packed]:
        """The picture, and the packed bits that were drawn for it before the source was kept."""
        return self.edit_all([query], layout)[0]

    def edit_all(self, queries: Sequence[EditQuery], layout: Layout) -> list[tuple[Image, Packed]]:
        """Several at once, which may share batches; see `edit`."""
        calls = [self._edit_call(query, layout) for query in queries]
        answers = self._executor.run_all(calls)
        return [(_tensor(answer, "image"), _tensor(answer, "bits")) for answer in answers]

    def _edit_call(self, query: EditQuery, layout: Layout) -> Call:
        arrays: dict[str, Tensor | np.ndarray] = {
            "text": query.text,
            "bits": query.bits,
            "weight": query.weight,
            "seed": np.asarray(query.seed, dtype=np.int64),
        }
        if query.log_odds is not None:
            arrays["log_odds"] = query.log_odds
        drawing, static = _drawing_arrays(query)
        return self._call(
            "infinity.edit",
            layout,
            arrays | drawing,
            top_k=query.top_k,
            top_p=query.top_p,
            **static,
        )

    def _ask(
        self,
        op: str,
        layout: Layout,
        arrays: Mapping[str, Tensor | np.ndarray],
        **static: Hashable,
    ) -> Answer:
        return run(self._executor, self._call(op, layout, arrays, **static))

    def _call(
        self,
        op: str,
        layout: Layout,
        arrays: Mapping[str, Tensor | np.ndarray],
        **static: Hashable,
    ) -> Call:
        plain = {n: a.detach().numpy() if isinstance(a, Tensor) else a for n, a in arrays.items()}
        biases = self._biases if op.startswith("infinity.") else {}
        return Call(op, plain, {**self._static, **biases, "schedule": layout.name, **static})


def is_guided(guidance: Sequence[float]) -> bool:
    """Whether any scale needs the branch without text."""
    return any(strength != 1 for strength in guidance)


def _training_arrays(query: TrainingQuery) -> dict[str, Tensor | np.ndarray]:
    return {
        "text": query.text,
        "features": query.features,
        "flips": query.flips,
        "branch_scale": query.branch_scale,
        "dropped": np.asarray(query.dropped),
        "divergence_weight": _scalar(query.divergence_weight),
    }


def _drawing_arrays(
    query: EditQuery,
) -> tuple[dict[str, Tensor | np.ndarray], dict[str, int | bool]]:
    """What decides how likely bits are, besides the text."""
    arrays: dict[str, Tensor | np.ndarray] = {
        "guidance": np.asarray(query.guidance, dtype=np.float32),
        "temperature": np.asarray(query.temperature, dtype=np.float32),
    }
    if query.negative is not None:
        arrays["negative"] = query.negative
    lora, static = _lora_arrays(query.adapters)
    guided = {"guided": is_guided(query.guidance), "insertion": query.insertion}
    return arrays | lora, static | guided


def _lora_arrays(
    adapters: Adapters | None,
) -> tuple[dict[str, Tensor | np.ndarray], dict[str, int]]:
    if adapters is None:
        return {}, {}
    return {"lora": adapters.flat, "lora_scale": _scalar(adapters.scale)}, {"rank": adapters.rank}


def _step_loss(loss: Float[Tensor, ""], answer: Answer) -> StepLoss:
    return StepLoss(
        loss,
        float(answer.arrays["weighted"]),
        float(answer.arrays["divergence"]),
        _tensor(answer, "accuracy"),
    )


def _scalar(value: float) -> np.ndarray:
    return np.asarray(value, dtype=np.float32)


def _tensor(answer: Answer, name: str) -> Shaped[Tensor, "..."]:
    array = answer.arrays[name]
    return torch.from_numpy(array if array.flags.writeable else array.copy())
