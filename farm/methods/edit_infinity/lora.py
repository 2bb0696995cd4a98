"""Stage 2: low-rank adapters of the feed-forward networks (spec §5.4)."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.methods.edit_infinity.client import InfinityClient, StepLoss, TrainingQuery
from farm.methods.edit_infinity.codes import SourceCodes
from farm.methods.edit_infinity.config import EditInfinityConfig, LoraConfig
from farm.methods.edit_infinity.editing import recalled
from farm.methods.edit_infinity.lora_format import LoraShapes, adapters_of, initial_adapters
from farm.methods.edit_infinity.needs import Layout
from farm.methods.edit_infinity.noise import step_noise
from farm.methods.edit_infinity.snapshots import chosen, saved_by_updates
from farm.methods.edit_infinity.stored import read_artifact
from farm.methods.edit_infinity.training import Run, TrainingState, optimise, snapshots_in
from farm.progress import Picture, Progress
from farm.training import keyed_generator

STAGE = "edit_infinity.lora"

Rows = Float[Tensor, "rows text_width"]
Flat = Float[Tensor, " numbers"]


@dataclass(frozen=True)
class LearnedLora:
    """The artifact of stage 2.

    Attributes:
        snapshots: adapters by iteration, as vectors (`lora_format`).
        losses: of every step.
        accuracy_after: share of the picture's bits foretold right with the last adapters.
    """

    snapshots: Mapping[int, Tensor]
    losses: tuple[float, ...]
    accuracy_after: float

    def flat(self, iteration: int | None) -> Flat:
        """Adapters of an iteration; None: the last.

        Raises:
            InvalidRequestError: that iteration was not kept; says which ones were.
        """
        return chosen(self.snapshots, iteration, "the adapters")

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors by name; `metadata` goes with them."""
        tensors = {f"snapshots.{n}": t.contiguous() for n, t in self.snapshots.items()}
        return tensors | {"losses": torch.tensor(self.losses, dtype=torch.float64)}

    def metadata(self) -> dict[str, str]:
        """What is not a tensor."""
        return {"accuracy_after": repr(self.accuracy_after)}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> "LearnedLora":
        """Inverse of `to_tensors` and `metadata`.

        Raises:
            CorruptArtifactError: something is missing.
        """
        return read_artifact(
            "adapters",
            lambda: cls(
                snapshots_in(tensors),
                tuple(tensors["losses"].tolist()),
                float(metadata["accuracy_after"]),
            ),
            tensors,
        )


def train_lora(
    codes: SourceCodes,
    text: Rows,
    client: InfinityClient,
    config: EditInfinityConfig,
    *,
    seed: int,
    checkpoint: TrainingState | None = None,
) -> Generator[Progress, None, LearnedLora]:
    """Train adapters on the source picture's bits.

    Costs one forward and one backward an update, and a forward after to say what it brought.

    Args:
        codes: the source.
        text: rows of the source prompt; with the instruction and the learned rows where those are
            used.
        client: the frozen model.
        config: numbers.
        seed: of the first adapters and of the noise.
        checkpoint: where an interrupted run of the same arguments was; the result is the same to
            the last bit as that of a run without interruption, wherever the client's is.

    Yields:
        One `Progress` per network call; after each update it carries a checkpoint.

    Raises:
        EditDivergedError: a loss is not finite.
    """
    layout = client.model.schedule(codes.layout)
    updates = config.updates(config.lora.train_lora_iter)
    saved = saved_by_updates(config, config.lora.train_lora_iter)

    def preview(leaf: Flat) -> Picture:
        return recalled(codes, text, client, adapters_of(leaf, config.lora), seed=seed)

    run = Run(STAGE, updates, saved, before=0, total=updates + 1, preview=preview)
    state = checkpoint
    if state is None:
        shapes = LoraShapes.of(client.model, config.lora.lora_r)
        first = initial_adapters(shapes, keyed_generator(seed, STAGE, "first"))
        state = TrainingState.starting(first)
    loss_at = _LoraLoss(codes, text, client, config.lora, layout, seed)
    state = yield from optimise(state, loss_at, config.lora.optimiser, run)
    adapters = adapters_of(state.leaf, config.lora)
    after = client.accuracy(text, codes.bits, layout, adapters).overall(layout)
    yield Progress(STAGE, run.total, run.total, detail={"bit_accuracy": after})
    return LearnedLora(state.snapshots, state.losses, after)


@dataclass(frozen=True)
class _LoraLoss:
    codes: SourceCodes
    text: Rows
    client: InfinityClient
    config: LoraConfig
    layout: Layout
    seed: int

    def __call__(self, leaf: Flat, step: int) -> StepLoss:
        key = (self.seed, STAGE, step)
        noise = step_noise(self.client.model, self.layout, self.config.noise, key)
        query = TrainingQuery(
            text=self.text,
            features=self.codes.features,
            flips=noise.flips,
            branch_scale=noise.branch_scale,
            dropped=noise.dropped,
            divergence_weight=self.config.kl_weight,
        )
        return self.client.lora_loss(
            query,
            adapters_of(leaf, self.config),
            self.layout,
            dropout=self.config.lora_dropout,
            dropout_seed=noise.dropout_seed,
        )
