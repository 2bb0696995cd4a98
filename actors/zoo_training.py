"""The zoo's training loop on Ray Train workers; the loop itself is `farm.zoo.recipes.loop`."""

import tempfile
from collections.abc import Callable
from typing import TypeAlias

import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer, prepare_model

from cluster.table import TABLE
from farm.allocator import keep_freed_memory
from farm.errors import EditFailedError, FarmError
from farm.zoo.recipes.loop import Report, Training, train_recipe

Figures: TypeAlias = dict[str, float]
_REPORT_EVERY = 50  # steps; each report is a barrier across the workers


def train_on_workers(
    build: Callable[[], Training],
    *,
    workers: int = 1,
    report_every: int = _REPORT_EVERY,
    on_report: Callable[[Figures], None] | None = None,
) -> Figures:
    """Train to the end on CPU workers that average their gradients (gloo).

    The batch size is each worker's. Rank 0 writes the checkpoints into the training's folder,
    which all workers must see; whatever failed starts again from there.

    Args:
        build: makes the training in each worker, from its checkpoint where there is one; it
            pickles, and draws the same initial weights everywhere.
        workers: how many.
        report_every: steps between two reports.
        on_report: told of each report by rank 0, in its process.

    Returns:
        The last report: `step`, `loss`, and the recipe's figures; empty when nothing was left.

    Raises:
        FarmError: as a worker raised it; EditFailedError for what the farm did not foresee.
    """
    row = TABLE.zoo_worker

    def work() -> Figures:
        torch.set_num_threads(row.threads)
        keep_freed_memory()
        return _train(build(), report_every, on_report)

    with tempfile.TemporaryDirectory(prefix="farm-train-") as storage:
        trainer = TorchTrainer(
            work,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=train.ScalingConfig(
                num_workers=workers, resources_per_worker={"CPU": row.num_cpus}
            ),
            run_config=train.RunConfig(
                storage_path=storage,  # Ray's own notes; checkpoints lie in the training's folder
                failure_config=train.FailureConfig(max_failures=row.max_failures),
            ),
        )
        try:
            result = trainer.fit()
        except train.TrainingFailedError as error:
            raise _unwrapped(error) from error
    assert result.return_value is not None, "a training that did not fail returns its figures"
    return result.return_value


def _train(
    training: Training, report_every: int, on_report: Callable[[Figures], None] | None
) -> Figures:
    rank = train.get_context().get_world_rank()
    figures: Figures = {}
    for report in train_recipe(training, wrap=prepare_model, rank=rank):
        if report.step % report_every == 0 or report.step == training.config.steps:
            figures = _figures(report)
            train.report(figures)
            if on_report is not None and rank == 0:
                on_report(figures)
    return figures


def _figures(report: Report) -> Figures:
    return {
        **report.figures,
        **(report.evaluation or {}),
        "step": float(report.step),
        "loss": report.loss,
    }


def _unwrapped(error: train.TrainingFailedError) -> FarmError:
    if isinstance(error, train.WorkerGroupError):
        for failure in error.worker_failures.values():
            cause = getattr(
                failure, "_base_exc", failure
            )  # Ray's wrapper has no public name for it
            if isinstance(cause, FarmError):
                return cause
    return EditFailedError(f"the training failed on its workers: {error}")
