"""A golden set of Learnable Regions as arrays, settings and networks; nothing is assumed of sizes.

The format is described in the set's README. Coordinates are (x, y) with x the token ROW (quirk Q2).
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from farm.backbones.convert import openai_clip_state
from farm.backbones.dino import Dino, DinoFeatures, build_official_dino
from farm.backbones.scorer import Scorer
from farm.methods.learnable_regions.anchor_net import AnchorNet, RegionFeatures
from farm.methods.learnable_regions.anchors import cumulative_mass, released_anchors
from farm.methods.learnable_regions.boxes import cell_boxes, size_set, square_pixels
from farm.methods.learnable_regions.config import AnchorConfig, Quirks, reference

_HEAD_WIDTH = 64  # of OpenAI's CLIP
QUIRKS = Quirks.all()


@dataclass(frozen=True)
class Window:
    """What the set says of one `max_window_size`."""

    name: int
    sizes: Tensor
    points: Tensor
    """Of each image, (images, P, 2)."""
    cells: Tensor
    """Of every anchor and size, (images, P, S, 4), in cells."""
    log_probs: Tensor
    roi: Tensor


class GoldenSet:
    """Files of a set, and what the farm computes from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: dict[str, Any] = json.loads((folder / "values.json").read_text())
        self.config: dict[str, Any] = self.values["config"]
        with np.load(folder / "arrays.npz") as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.used_weights: set[str] = set()

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return {n: t.float() for n, t in load_file(self.folder / "weights.safetensors").items()}

    def array(self, name: str) -> Tensor:
        found = self.arrays[name]
        return torch.from_numpy(found.astype(np.int64) if found.dtype == np.int16 else found)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Weights under a prefix; each must be used by some test."""
        names = [name for name in self.weights if name.startswith(prefix)]
        self.used_weights.update(names)
        return {name.removeprefix(prefix): self.weights[name] for name in names}

    @cached_property
    def images(self) -> Tensor:
        """In [0, 1], (images, 3, height, width)."""
        return self.array("image_u8").permute(0, 3, 1, 2) / 255

    @cached_property
    def results(self) -> Tensor:
        """Stand-in results in [0, 1]."""
        return self.array("result_u8").permute(0, 3, 1, 2) / 255

    @cached_property
    def dino(self) -> Dino:
        return build_official_dino(self.part("dino."), num_heads=self.config["heads"])

    @cached_property
    def features(self) -> DinoFeatures:
        with torch.no_grad():
            return self.dino(self.images, normalise=not QUIRKS.raw_dino_pixels)

    @cached_property
    def attention(self) -> Tensor:
        """Head mean, (images, rows, columns)."""
        maps = self.features.attention[..., 1:].mean(dim=1)
        return maps.unflatten(1, (self.grid, self.grid))

    @property
    def grid(self) -> int:
        return round((self.features.tokens.shape[1] - 1) ** 0.5)

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]

    @cached_property
    def projected(self) -> Tensor:
        """(images, channels, rows, columns), by AnchorNet's own projection."""
        features = self.features.tokens[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        network = self.network(self.config["Ws"][0])
        with torch.no_grad():
            return network.projection(features)

    def network(self, window: int) -> AnchorNet:
        """The stored AnchorNet of a window size, with the stored projection."""
        head, projection = self.part(f"anchor_net_w{window}."), self.part("conv.")
        sizes = len(head["7.bias"])
        network = AnchorNet(self.config["dim"], sizes, reference().search.network, QUIRKS)
        state = {f"head.{n}": t for n, t in head.items()}
        state |= {f"projection.{n}": t for n, t in projection.items()}
        network.load_state_dict(state)
        return network

    def anchor_points(self, scores: Tensor, count: int, window: int) -> Tensor:
        maps = [cumulative_mass(score) for score in scores]
        return torch.stack([released_anchors(one, count, window) for one in maps])

    def window(self, name: int) -> Window:
        """All that follows from the images for one window size."""
        network = self.network(name)
        count = max(self.config["Ps"])
        stored = self.array("attn_mean").unflatten(1, (self.grid, self.grid))
        points = self.anchor_points(stored, count, name)  # ties as there
        sizes = released_sizes(name)
        cells = torch.stack([self.cells(p, sizes) for p in points])
        rois: list[Tensor] = []
        log_probs: list[Tensor] = []
        tokens = self.features.tokens[:, 1:]
        for image, boxes in enumerate(cells):
            seen = RegionFeatures(
                features=tokens[image].T.unflatten(1, (self.grid, self.grid)),
                saliency=self.attention[image],
                boxes=boxes,
                centred=False,
            )
            with torch.no_grad():
                rois.append(network.stacked(network.projection(seen.features[None])[0], seen))
                log_probs.append(network(seen))
        return Window(name, sizes, points, cells, torch.cat(log_probs), torch.cat(rois))

    def cells(self, points: Tensor, sizes: Tensor) -> Tensor:
        return cell_boxes(points, sizes, self.grid, released=True, mirrored=QUIRKS.mirrored_boxes)

    def pixels(self, cells: Tensor) -> Tensor:
        return square_pixels(cells, self.grid, self.image_size, released=True)

    @cached_property
    def scorer(self) -> Scorer:
        state = openai_clip_state(self.part("clip."))
        clip = self.config["clip"]
        vision = {
            "hidden_size": clip["width"],
            "intermediate_size": state[_FC.format("vision")].shape[0],
            "num_hidden_layers": clip["layers"],
            "num_attention_heads": clip["width"] // _HEAD_WIDTH,
            "patch_size": clip["patch"],
            "image_size": self._clip_size(state, clip["patch"]),
        }
        text = {
            "hidden_size": clip["twidth"],
            "intermediate_size": state[_FC.format("text")].shape[0],
            "num_hidden_layers": clip["tlayers"],
            "num_attention_heads": clip["twidth"] // _HEAD_WIDTH,
            "vocab_size": clip["vocab"],
            "max_position_embeddings": clip["ctx"],
            "eos_token_id": 2,  # transformers' sign for: the end is where the id is greatest
            "bos_token_id": 0,
            "pad_token_id": 1,
        }
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=clip["embed"])
        model = CLIPModel(config)
        model.load_state_dict(state)
        return Scorer(model)

    @staticmethod
    def _clip_size(state: dict[str, Tensor], patch: int) -> int:
        places = len(state["vision_model.embeddings.position_embedding.weight"])
        return patch * round((places - 1) ** 0.5)


_FC = "{}_model.encoder.layers.0.mlp.fc1.weight"


def released_sizes(window: int) -> Tensor:
    """The released program's set for a window, by the farm's own rule."""
    anchors = reference().search.anchors
    given = anchors.model_dump() | {"max_window_size": float(window)}
    return size_set(AnchorConfig.model_validate(given))
