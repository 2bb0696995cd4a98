"""Stage 1: a learned prompt, rows that follow the source prompt and an instruction (spec §5.3)."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.methods.edit_infinity.client import InfinityClient, StepLoss, TrainingQuery
from farm.methods.edit_infinity.codes import SourceCodes
from farm.methods.edit_infinity.config import EditInfinityConfig, PromptConfig
from farm.methods.edit_infinity.editing import recalled
from farm.methods.edit_infinity.needs import Layout
from farm.methods.edit_infinity.noise import step_noise
from farm.methods.edit_infinity.snapshots import chosen, saved_by_updates
from farm.methods.edit_infinity.stored import read_artifact
from farm.methods.edit_infinity.training import Run, TrainingState, optimise, snapshots_in
from farm.progress import Picture, Progress

STAGE = "edit_infinity.prompt"

Rows = Float[Tensor, "rows text_width"]


@dataclass(frozen=True)
class LearnedPrompt:
    """The artifact of stage 1.

    Attributes:
        snapshots: learned rows by iteration.
        losses: of every step.
        accuracy_before: share of the picture's bits foretold right without the learned rows.
        accuracy_after: the same with the last ones.
    """

    snapshots: Mapping[int, Tensor]
    losses: tuple[float, ...]
    accuracy_before: float
    accuracy_after: float

    def rows(self, iteration: int | None) -> Rows:
        """Learned rows of an iteration; None: the last.

        Raises:
            InvalidRequestError: that iteration was not kept; says which ones were.
        """
        return chosen(self.snapshots, iteration, "the learned prompt")

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors by name; `metadata` goes with them."""
        tensors = {f"snapshots.{n}": t.contiguous() for n, t in self.snapshots.items()}
        return tensors | {"losses": torch.tensor(self.losses, dtype=torch.float64)}

    def metadata(self) -> dict[str, str]:
        """What is not a tensor."""
        return {
            "accuracy_before": repr(self.accuracy_before),
            "accuracy_after": repr(self.accuracy_after),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> "LearnedPrompt":
        """Inverse of `to_tensors` and `metadata`.

        Raises:
            CorruptArtifactError: something is missing.
        """
        return read_artifact(
            "learned prompt",
            lambda: cls(
                snapshots_in(tensors),
                tuple(tensors["losses"].tolist()),
                float(metadata["accuracy_before"]),
                float(metadata["accuracy_after"]),
            ),
            tensors,
        )


def train_prompt(
    codes: SourceCodes,
    text: Rows,
    client: InfinityClient,
    config: EditInfinityConfig,
    *,
    seed: int,
    checkpoint: TrainingState | None = None,
) -> Generator[Progress, None, LearnedPrompt]:
    """Train rows of zeros, appended to the text, on the source picture's bits.

    Costs one forward and one backward an update, and a forward before and after to say what it
    brought.

    Args:
        codes: the source.
        text: rows of the source prompt with the instruction.
        client: the frozen model.
        config: numbers.
        seed: of the noise.
        checkpoint: where an interrupted run of the same arguments was; the result is the same to
            the last bit as that of a run without interruption, wherever the client's is.

    Yields:
        One `Progress` per network call; after each update it carries a checkpoint.

    Raises:
        EditDivergedError: a loss is not finite.
    """
    layout = client.model.schedule(codes.layout)
    updates = config.updates(config.prompt.train_textembedding_iter)
    saved = saved_by_updates(config, config.prompt.train_textembedding_iter)

    def preview(leaf: Rows) -> Picture:
        return recalled(codes, torch.cat([text, leaf]), client, seed=seed)

    run = Run(STAGE, updates, saved, before=1, total=updates + 2, preview=preview)
    before = client.accuracy(text, codes.bits, layout).overall(layout)
    yield Progress(STAGE, 1, run.total, detail={"bit_accuracy": before})
    state = checkpoint
    if state is None:
        state = TrainingState.starting(torch.zeros(config.prompt.prompt_rows, text.shape[1]))
    loss_at = _PromptLoss(codes, text, client, config.prompt, layout, seed)
    state = yield from optimise(state, loss_at, config.prompt.optimiser, run)
    whole = torch.cat([text, state.leaf])
    after = client.accuracy(whole, codes.bits, layout).overall(layout)
    yield Progress(STAGE, run.total, run.total, detail={"bit_accuracy": after})
    return LearnedPrompt(state.snapshots, state.losses, before, after)


@dataclass(frozen=True)
class _PromptLoss:
    codes: SourceCodes
    text: Rows
    client: InfinityClient
    config: PromptConfig
    layout: Layout
    seed: int

    def __call__(self, leaf: Rows, step: int) -> StepLoss:
        key = (self.seed, STAGE, step)
        noise = step_noise(self.client.model, self.layout, self.config.noise, key)
        query = TrainingQuery(
            text=self.text,
            features=self.codes.features,
            flips=noise.flips,
            branch_scale=noise.branch_scale,
            dropped=noise.dropped,
            divergence_weight=0.0,  # this stage has the cross-entropy alone
        )
        return self.client.prompt_loss(query, leaf, self.layout)
