"""Where the UNet's words look: attention of nouns, colours and backgrounds on real scenes.

The maps are those that the methods record: cross-attention of all 16x16 layers in down and up
blocks through `AttentionControl`, averaged over layers and heads. Held-out renders are encoded and
noised to each of the 20 timesteps of the methods' default sampling (951, 901, ..., 1), and the maps
averaged over them; single bands of timesteps are reported beside.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPModel

from farm.adapters.attention import AttentionControl
from farm.backbones.clip import TextEncoder
from farm.backbones.stable_diffusion import NoisePredictor
from farm.masks import binarise_midpoint, iou, pointing
from farm.samplers.ddim import NoiseSchedule
from farm.zoo.measures.bench import Bench, Figures, by_group, combinations, stacked
from farm.zoo.recipes.clip import scenes_tokenizer, token_batch
from farm.zoo.recipes.diffusion import load_autoencoder
from farm.zoo.recipes.spec import scenes_spec
from farm.zoo.scenes.captions import caption
from farm.zoo.scenes.rendering import Rendering, render
from farm.zoo.scenes.scenes import Scenes, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, SHAPES, SIZE, is_held_out

STEPS = 20
_BANDS = {"early": 667, "middle": 334, "late": 0}
"""First timestep of each band; a band ends where the previous one begins."""
_SMALL = 0.04  # of the picture: definitions.md reports such objects apart


@dataclass(frozen=True)
class WordMaps:
    """Maps of all tokens, averaged over layers, heads and timesteps."""

    by_band: dict[str, Float[Tensor, "scenes tokens size size"]]
    """`all`, and each band of timesteps."""

    def at(self, scene: int, token: int) -> dict[str, Float[Tensor, "height width"]]:
        """One token's maps at the picture's size, bilinear as the methods enlarge them."""
        return {
            name: F.interpolate(maps[scene, token][None, None], size=(SIZE, SIZE), mode="bilinear")[
                0, 0
            ]
            for name, maps in self.by_band.items()
        }


class AttentionReader:
    """The networks of a folder, ready to be asked where words look.

    Args:
        bench: names the folder.
        part: which UNet.
    """

    def __init__(self, bench: Bench, part: str = "unet") -> None:
        folder, spec = bench.networks, scenes_spec()
        self._unet = NoisePredictor(
            UNet2DConditionModel.from_pretrained(folder / part).float(), spec
        )
        self._vae = load_autoencoder(folder)
        self._text = TextEncoder(CLIPModel.from_pretrained(folder / "clip").text_model.float())
        self._tokenizer = scenes_tokenizer()
        self._schedule = NoiseSchedule.from_spec(spec)
        self._size = spec.map_size

    def read(self, scenes: Scenes, drawn: Rendering, generator: torch.Generator) -> WordMaps:
        """Maps of the canonical captions' tokens on the rendered pictures."""
        ids = token_batch(self._tokenizer, [caption(scenes, i) for i in range(len(scenes))])
        timesteps = self._schedule.timesteps(STEPS)
        sums: dict[str, list[Tensor]] = {"all": []}
        with torch.no_grad():
            latents, embeds = self._vae.encode(drawn.images), self._text(ids)
            for timestep in timesteps:
                maps = self._maps(latents, timestep, embeds, generator)
                sums["all"].append(maps)
                sums.setdefault(_band(timestep), []).append(maps)
        return WordMaps({name: torch.stack(maps).mean(0) for name, maps in sums.items()})

    def _maps(
        self, latents: Tensor, timestep: int, embeds: Tensor, generator: torch.Generator
    ) -> Float[Tensor, "scenes tokens size size"]:
        alpha = self._schedule.alpha_at(timestep)
        noise = torch.randn(latents.shape, generator=generator)
        noisy = alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise
        control = AttentionControl(record_pixels=self._size**2)
        self._unet(noisy, torch.full((len(latents),), timestep), embeds, control)
        mean = torch.stack([layer.mean(1) for layer in control.maps]).mean(0)
        return mean.transpose(1, 2).unflatten(-1, (self._size, self._size))

    def tokens(self, scenes: Scenes, scene: int, words: tuple[str, ...]) -> list[int]:
        """Positions of those of the words that the scene's caption holds, in its order."""
        pieces = self._tokenizer.encode(caption(scenes, scene)).pieces
        return [position for position, piece in enumerate(pieces, start=1) if piece in words]


def measure_word_attention(bench: Bench, part: str = "unet") -> Figures:
    """`midpoint_iou` and `pointing` of nouns and colours (per object) and of backgrounds.

    Say with every figure whether the UNet's attention was grounded on masks in training.
    """
    reader = AttentionReader(bench, part)
    scenes = sample_scenes(
        bench.cases, generator_for("heldout", bench.seed, "attention"), split="heldout"
    )
    generator = generator_for("heldout", bench.seed, "attention noise")
    objects: list[dict[str, float]] = []
    backgrounds: list[dict[str, float]] = []
    for chunk in bench.chunks(f"{part}, word attention"):
        some = scenes[chunk]
        drawn = render(some)
        maps = reader.read(some, drawn, generator)
        for i in range(len(some)):
            objects += _object_rows(reader, maps, some, drawn, i)
            (token,) = reader.tokens(some, i, BACKGROUNDS)
            backgrounds.append(_scores(maps, i, token, 1 - drawn.masks[i].amax(0), "background"))
    cases = stacked(objects)
    small, count, held_out = (cases.pop(name) for name in ("small", "count", "held_out"))
    groups = combinations(held_out == 1)
    groups |= {"small": small == 1, "one": count == 1, "two": count == 2}
    figures = by_group(cases, groups)
    figures["background"] = by_group(stacked(backgrounds), {})["all"]
    return figures


def _object_rows(
    reader: AttentionReader, maps: WordMaps, scenes: Scenes, drawn: Rendering, scene: int
) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    nouns, colours = (reader.tokens(scenes, scene, words) for words in (SHAPES, COLOUR_NAMES))
    for slot in range(int(scenes.count[scene])):
        mask = drawn.masks[scene, slot]
        triple = (int(scenes.shape[scene, slot]), int(scenes.colour[scene, slot]))
        rows.append(
            {
                **_scores(maps, scene, nouns[slot], mask, "noun"),
                **_scores(maps, scene, colours[slot], mask, "colour"),
                "small": float(mask.mean() < _SMALL),
                "count": float(scenes.count[scene]),
                "held_out": float(is_held_out(*triple, int(scenes.background[scene]))),
            }
        )
    return rows


def _scores(
    maps: WordMaps, scene: int, token: int, mask: Float[Tensor, "height width"], word: str
) -> dict[str, float]:
    truth = (mask > 0.5).float()
    scores: dict[str, float] = {}
    for band, attention in maps.at(scene, token).items():
        name = word if band == "all" else f"{word}_{band}"
        scores[f"{name}_midpoint_iou"] = iou(binarise_midpoint(attention), truth).item()
        scores[f"{name}_pointing"] = float(pointing(attention, truth).item())
    return scores


def _band(timestep: int) -> str:
    return next(name for name, first in _BANDS.items() if timestep >= first)
