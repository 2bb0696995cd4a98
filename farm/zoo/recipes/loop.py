"""The one training loop of the zoo: resumable, deterministic by step, free of any framework."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from farm.zoo.recipes.curves import Curve


@runtime_checkable
class Recipe(Protocol):
    """What one part of the zoo says about its training; the loop does the rest."""

    @property
    def name(self) -> str: ...

    def build(self) -> nn.Module:
        """The module to train, freshly initialised from the recipe's seed."""
        ...

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Loss of one batch drawn from `generator` alone, and figures to show."""
        ...

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Figures on held-out seeds; `module` holds the averaged weights, in eval mode."""
        ...

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write the part in Hugging Face layout, fp16."""
        ...

    def load(self, folder: Path) -> nn.Module:
        """What `export` wrote, in fp32 and eval mode."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """Numbers of one training run."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 100
    final_rate: float = 0.03
    """Share of the learning rate that is left at the end of the cosine."""
    constant: float = 0.0
    """Share of the steps before the cosine begins."""
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    average: float = 0.995
    """Decay of the exponential moving average of the weights."""
    clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 250
    evaluate_every: int | None = 1000
    """None: never, not even at the end."""
    curve_every: int = 50
    bf16: bool = True


@dataclass(frozen=True)
class Report:
    """What the loop tells after a step."""

    step: int
    loss: float
    figures: dict[str, float]
    evaluation: dict[str, float] | None


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Linear warm-up, an optional constant phase, then a cosine down to `final_rate`."""
    progress = min(1.0, step / max(1, config.steps))
    progress = max(0.0, (progress - config.constant) / (1 - config.constant))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return config.learning_rate * warm * (config.final_rate + (1 - config.final_rate) * cosine)


def generator_at(seed: int, step: int, rank: int) -> torch.Generator:
    """Random numbers of one step on one worker, so that a resumed run repeats them."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4_099 + rank)


class Training:
    """A recipe in progress: weights, their average, the optimiser and the step."""

    def __init__(self, recipe: Recipe, config: LoopConfig, folder: Path) -> None:
        self.recipe, self.config, self.folder = recipe, config, folder
        self.module = recipe.build()
        self.parameters = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.average = {n: t.detach().clone() for n, t in self.module.state_dict().items()}
        self.step = 0
        if self.checkpoint.exists():
            self._load()

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.recipe.name}.training.safetensors"

    @property
    def curve(self) -> Path:
        return self.folder / f"{self.recipe.name}.curve.jsonl"

    def averaged(self) -> nn.Module:
        """A copy of the module with the averaged weights, for evaluation and export."""
        module = self.recipe.build()
        module.load_state_dict(self.average)
        return module.eval()

    def save(self) -> None:
        """Write the whole state; a crash leaves the previous one in place."""
        tensors = {f"module.{n}": t.contiguous() for n, t in self.module.state_dict().items()}
        tensors |= {f"average.{n}": t.contiguous() for n, t in self.average.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value.contiguous()
        tensors = {n: t.clone() for n, t in tensors.items()}  # tied weights may not share memory
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        save_file(tensors, partial, metadata={"step": str(self.step)})
        partial.replace(self.checkpoint)

    def _load(self) -> None:
        tensors = load_file(self.checkpoint)
        groups: dict[str, dict[str, Tensor]] = {"module": {}, "average": {}, "optimizer": {}}
        for name, value in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = value
        self.module.load_state_dict(groups["module"])
        self.average = groups["average"]
        for name, parameter in self.parameters.items():
            state: dict[str, Any] = {
                key: groups["optimizer"][f"{key}.{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in groups["optimizer"]
            }
            if state:
                self.optimizer.state[parameter] = state
                self.step = int(state["step"])

    def update_average(self) -> None:
        decay = min(self.config.average, (self.step + 1) / (self.step + 20))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)


def train_recipe(
    training: Training,
    *,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    rank: int = 0,
) -> Iterator[Report]:
    """Train until `config.steps`, from wherever the checkpoint left off; one report a step.

    Args:
        training: the state, which this function advances.
        wrap: what puts the module under data parallelism; the identity on one worker.
        rank: this worker's number; workers draw different data, rank 0 evaluates and writes the
            checkpoints and the curve.
    """
    config, recipe = training.config, training.recipe
    curve = None
    if rank == 0:
        curve = Curve(training.curve, step=training.step, every=config.curve_every)
    module = wrap(training.module)
    while training.step < config.steps:
        for group in training.optimizer.param_groups:
            group["lr"] = learning_rate_at(training.step, config)
        module.train()
        generator = generator_at(config.seed, training.step, rank)
        with (
            torch.random.fork_rng(devices=()),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bf16),
        ):
            # layers that drop something take no generator; they too repeat in a resumed run
            torch.random.manual_seed(generator.initial_seed())
            loss, figures = recipe.loss(module, training.step, config.batch_size, generator)
        training.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(training.parameters.values(), config.clip)
        training.optimizer.step()
        training.step += 1
        training.update_average()
        last = training.step == config.steps
        evaluation = None
        if rank == 0 and _is_due(training.step, config.evaluate_every, last=last):
            with torch.no_grad():
                evaluation = recipe.evaluate(training.averaged())
        if rank == 0 and _is_due(training.step, config.checkpoint_every, last=last):
            training.save()
        if curve is not None:
            curve.add(training.step, {"loss": loss.item(), **figures}, evaluation)
        yield Report(training.step, loss.item(), figures, evaluation)


def _is_due(step: int, every: int | None, *, last: bool) -> bool:
    return every is not None and (last or step % every == 0)
