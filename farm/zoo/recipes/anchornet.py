"""One AnchorNet for many pictures, trained on the loss tables of their edits (spec §3).

What is trained starts later edits (`anchornet` of a request), which then draw one size of each
anchor instead of all of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from farm.errors import InvalidRequestError, ModelSetError
from farm.methods.learnable_regions.anchor_net import (
    AnchorNet,
    RegionFeatures,
    build_anchor_net,
    state_of,
)
from farm.methods.learnable_regions.config import LearnableRegionsConfig
from farm.methods.learnable_regions.searched import network_of, network_tensors
from farm.methods.learnable_regions.training import amortised_loss, expected_loss
from farm.training import keyed_generator

NAME = "anchornet"
_HELD_OUT = 8
"""Every so many-th picture is kept from training."""


@dataclass(frozen=True)
class Tables:
    """Pictures with their loss tables, stacked; all of one configuration.

    Attributes:
        features: DINO's, per cell.
        saliency: that anchors come from.
        cells: boxes of each anchor and size, in cells.
        losses: of each anchor and size.
    """

    features: Float[Tensor, "pictures width rows columns"]
    saliency: Float[Tensor, "pictures rows columns"]
    cells: Float[Tensor, "pictures anchors sizes 4"]
    losses: Float[Tensor, "pictures anchors sizes"]

    def example(
        self, number: int, *, centred: bool
    ) -> tuple[RegionFeatures, Float[Tensor, "anchors sizes"]]:
        """What AnchorNet sees of one picture, and what each choice costs."""
        seen = RegionFeatures(
            self.features[number], self.saliency[number], self.cells[number], centred
        )
        return seen, self.losses[number]

    def save(self, path: Path) -> None:
        """Write them as one file; a crash leaves what was there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({name: getattr(self, name).contiguous() for name in _TENSORS}, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Tables":
        """What `save` wrote."""
        tensors = load_file(path)
        return cls(**{name: tensors[name] for name in _TENSORS})

    @classmethod
    def stack(cls, rows: Iterable["Tables"]) -> "Tables":
        """One after the other.

        Raises:
            InvalidRequestError: none, or of different configurations.
        """
        found = list(rows)
        shapes = {tuple(tuple(getattr(row, n).shape[1:]) for n in _TENSORS) for row in found}
        if len(shapes) != 1:
            raise InvalidRequestError(
                f"found {len(found)} loss tables of {len(shapes)} shapes, expected at least one "
                "and one shape: use pictures of one model set, with the same anchors and sizes"
            )
        return cls(**{n: torch.cat([getattr(row, n) for row in found]) for n in _TENSORS})


_TENSORS = ("features", "saliency", "cells", "losses")


class TableLoss(nn.Module):
    """AnchorNet with its loss, so that data parallelism sees one forward a step."""

    def __init__(self, network: AnchorNet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, examples: list[tuple[RegionFeatures, Float[Tensor, "_anchors _sizes"]]]
    ) -> Float[Tensor, ""]:
        """Mean expected loss of some pictures."""
        return amortised_loss(self.network, examples)


class AnchorNetRecipe:
    """AnchorNet on stored tables; see `farm.zoo.recipes.loop.Recipe`.

    Args:
        tables: file of `Tables`.
        config: of the edits that the tables come from.
        seed: of the first parameters.

    Raises:
        ModelSetError: the file is not there.
    """

    name = NAME

    def __init__(self, tables: Path, config: LearnableRegionsConfig, *, seed: int = 0) -> None:
        if not tables.is_file():
            raise ModelSetError(f"{tables} is missing: collect the loss tables first")
        self._tables, self._config, self._seed = Tables.load(tables), config.search, seed
        numbers = range(len(self._tables.losses))
        self.held_out = [n for n in numbers if n % _HELD_OUT == _HELD_OUT - 1]
        self.seen = [n for n in numbers if n % _HELD_OUT != _HELD_OUT - 1]

    def build(self) -> TableLoss:
        network = build_anchor_net(
            self._tables.features.shape[1],
            self._tables.losses.shape[2],
            self._config.network,
            self._config.quirks,
            keyed_generator(self._seed, NAME),
        )
        return TableLoss(network)

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Mean expected loss of pictures drawn with replacement."""
        del step
        drawn = torch.randint(len(self.seen), (batch_size,), generator=generator)
        loss: Tensor = module([self._example(self.seen[int(n)]) for n in drawn])
        return loss, {}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Mean losses of pictures that were not trained on.

        Returns:
            `expected`, what the network's draws cost; `chosen`, its likeliest sizes; `least`, the
            best of each anchor; `uniform`, sizes by lot. Empty where no picture is held out.
        """
        assert isinstance(module, TableLoss)
        rows: list[tuple[float, ...]] = []
        for number in self.held_out:
            seen, losses = self._example(number)
            log_probs = module.network(seen)
            chosen = losses.gather(1, log_probs.argmax(dim=1, keepdim=True))
            exact = expected_loss(log_probs, losses)
            figures = (exact, chosen.mean(), losses.amin(dim=1).mean(), losses.mean())
            rows.append(tuple(f.item() for f in figures))
        names = ("expected", "chosen", "least", "uniform")
        if not rows:
            return {}
        return dict(zip(names, torch.tensor(rows).mean(dim=0).tolist(), strict=True))

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write `anchornet.safetensors`, which requests name as `anchornet`."""
        assert isinstance(module, TableLoss)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(network_tensors(state_of(module.network)), folder / f"{NAME}.safetensors")

    def load(self, folder: Path) -> TableLoss:
        module = self.build()
        module.network.load_state_dict(network_of(load_file(folder / f"{NAME}.safetensors")))
        return module.eval()

    def _example(self, number: int) -> tuple[RegionFeatures, Float[Tensor, "_anchors _sizes"]]:
        centred = self._config.anchors.box_rule == "centred"
        return self._tables.example(number, centred=centred)
