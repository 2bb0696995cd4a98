"""AnchorNet's training on one picture: real gradients from a table of losses (spec §3).

Which size an anchor gets is a choice among a few, so no gradient need pass the diffusion model:
with the loss of every choice known, the expected loss and its gradient are exact.
"""

import math
from collections.abc import Generator, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.errors import EditDivergedError
from farm.methods.learnable_regions.anchor_net import AnchorNet, RegionFeatures
from farm.methods.learnable_regions.config import TrainingConfig
from farm.training import keyed_generator


def expected_loss(
    log_probs: Float[Tensor, "anchors sizes"], table: Float[Tensor, "anchors sizes"]
) -> Float[Tensor, ""]:
    """Mean over anchors of Σ_j π_ij L_ij: what a drawn size costs, exactly."""
    return (log_probs.exp() * table).sum(dim=1).mean()


def amortised_loss(
    network: AnchorNet,
    examples: Sequence[tuple[RegionFeatures, Float[Tensor, "_anchors _sizes"]]],
) -> Float[Tensor, ""]:
    """Mean expected loss over pictures, each with its table: one network for all (spec §3)."""
    return torch.stack([expected_loss(network(seen), table) for seen, table in examples]).mean()


def gumbel_noise(
    like: Float[Tensor, "anchors sizes"], generator: torch.Generator
) -> Float[Tensor, "anchors sizes"]:
    """-log of exponential variables: an argmax with it draws from a categorical distribution."""
    return -torch.empty_like(like).exponential_(generator=generator).log()


def gumbel_choice(
    log_probs: Float[Tensor, "anchors sizes"], noise: Float[Tensor, "anchors sizes"]
) -> Int[Tensor, " anchors"]:
    """A size for each anchor, drawn with the probabilities (Q7; the paper's hard sample)."""
    return (log_probs + noise).argmax(dim=1)


def gumbel_loss(
    log_probs: Float[Tensor, "anchors sizes"],
    table: Float[Tensor, "anchors sizes"],
    noise: Float[Tensor, "anchors sizes"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """The paper's form: loss of the drawn sizes, whose gradient is that of the softened draw.

    ⟨y_i, L_i⟩ with y straight through: hard in value, softmax((log π + g) / τ) in gradient.
    """
    soft = ((log_probs + noise) / temperature).softmax(dim=1)
    hard = torch.nn.functional.one_hot(soft.argmax(dim=1), soft.shape[1]).to(soft)
    straight = hard + soft - soft.detach()
    return (straight * table).sum(dim=1).mean()


def reinforce_loss(
    log_probs: Float[Tensor, "anchors sizes"],
    chosen: Int[Tensor, " anchors"],
    losses: Float[Tensor, " anchors"],
    baseline: Float[Tensor, " anchors"],
) -> Float[Tensor, ""]:
    """A number whose gradient is (L_ij - b_i) ∇ log π_ij: on average, the expected loss's."""
    taken = log_probs.gather(1, chosen[:, None])[:, 0]
    return ((losses - baseline) * taken).mean()


def train_on_table(
    network: AnchorNet,
    seen: RegionFeatures,
    table: Float[Tensor, "anchors sizes"],
    config: TrainingConfig,
    *,
    key: tuple[str | int, ...],
    released_schedule: bool = False,
) -> Iterator[float]:
    """Train in place on a table that is known whole; the exact or the Gumbel form.

    Args:
        network: changed in place.
        seen: features of the picture.
        table: losses of each anchor and size.
        config: numbers of the training.
        key: that random numbers depend on, with the iteration.
        released_schedule: Q9.

    Yields:
        The expected loss before each iteration.

    Raises:
        EditDivergedError: a loss is not finite.
    """
    optimiser = _Optimiser(network, config, released=released_schedule)
    for iteration in range(config.iterations):
        log_probs = network(seen)
        exact = expected_loss(log_probs, table)
        loss = exact
        if config.objective == "gumbel":
            noise = gumbel_noise(log_probs, keyed_generator(*key, "gumbel", iteration))
            loss = gumbel_loss(log_probs, table, noise, config.temperature)
        optimiser.step(iteration, loss)
        yield exact.item()


def train_by_drawing(
    network: AnchorNet,
    seen: RegionFeatures,
    config: TrainingConfig,
    *,
    key: tuple[str | int, ...],
    released_schedule: bool = False,
) -> Generator[Int[Tensor, " anchors"], Float[Tensor, " anchors"], None]:
    """Train in place with REINFORCE: one size an anchor and iteration has to be known.

    The baseline of an anchor is the mean of its losses so far; the first only sets it.

    Args:
        network: changed in place.
        seen: features of the picture.
        config: numbers of the training.
        key: that draws depend on, with the iteration.
        released_schedule: Q9.

    Yields:
        Sizes that are drawn, whose losses are to be sent.

    Raises:
        EditDivergedError: a loss is not finite.
    """
    optimiser = _Optimiser(network, config, released=released_schedule)
    total = torch.zeros(len(seen.boxes))
    for iteration in range(config.iterations):
        log_probs = network(seen)
        noise = gumbel_noise(log_probs, keyed_generator(*key, "draw", iteration))
        chosen = gumbel_choice(log_probs.detach(), noise)
        losses = yield chosen
        baseline = total / iteration if iteration else losses
        optimiser.step(iteration, reinforce_loss(log_probs, chosen, losses, baseline))
        total = total + losses


def learning_rate(config: TrainingConfig, iteration: int, *, released: bool = False) -> float:
    """Cosine from `lr` to 0, lr/2 (1 + cos(π t / T)); as released t is one further (Q9)."""
    moved = iteration + 1 if released else iteration
    return config.lr / 2 * (1 + math.cos(math.pi * moved / config.iterations))


def steps_at(config: TrainingConfig, iteration: int, *, released: bool = False) -> bool:
    """Whether the gradients so far become an optimiser step after this iteration.

    After each `accum_grad` iterations and the last one; as released, at iterations that
    `accum_grad` divides, 0 included, and what is left over is lost (Q9).
    """
    if released:
        return iteration % config.accum_grad == 0
    return (iteration + 1) % config.accum_grad == 0 or iteration + 1 == config.iterations


class _Optimiser:
    """Adam under a schedule, with gradients that may gather for several iterations."""

    def __init__(self, network: AnchorNet, config: TrainingConfig, *, released: bool) -> None:
        self._config, self._released = config, released
        self._adam = torch.optim.Adam(
            [p for p in network.parameters() if p.requires_grad],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )

    def step(self, iteration: int, loss: Float[Tensor, ""]) -> None:
        config = self._config
        if not loss.isfinite():
            raise EditDivergedError(
                f"AnchorNet's loss is {loss.item()} in iteration {iteration}: try an lr below "
                f"{config.lr:g} or another seed"
            )
        share = 1 if self._released else config.accum_grad
        (loss / share).backward()  # pyright: ignore[reportUnknownMemberType]
        if not steps_at(config, iteration, released=self._released):
            return
        rate = learning_rate(config, iteration, released=self._released)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._adam.zero_grad()
