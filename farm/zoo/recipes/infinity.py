"""The Infinity of the scenes world: bitwise scale-by-scale generation under a frozen T5."""

import random
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from farm.backbones.infinity.config import InfinityConfig
from farm.backbones.infinity.generation import Guidance, generate
from farm.backbones.infinity.loading import load_transformer, load_vae
from farm.backbones.infinity.loss import bit_loss
from farm.backbones.infinity.networks import TEXT, TRANSFORMER, VAE, load_text_encoder, spec_of
from farm.backbones.infinity.quantiser import (
    Quantised,
    quantise,
    teacher_inputs,
    teacher_targets,
)
from farm.backbones.infinity.sampling import Filter, KeyedNoise
from farm.backbones.infinity.schedules import Schedule
from farm.backbones.infinity.spec import InfinitySpec
from farm.backbones.infinity.tokenizer import TextTokenizer
from farm.backbones.infinity.transformer import Infinity, PassOptions
from farm.zoo.judge import load_judge
from farm.zoo.matching import match_prompts
from farm.zoo.recipes.bsq_vae import SIDES, scenes_grids, scenes_schedule
from farm.zoo.recipes.feature_pool import FeaturePool, feature_pool
from farm.zoo.recipes.grounding import grounding_loss
from farm.zoo.recipes.infinity_weights import initialise
from farm.zoo.recipes.splices import OldScenes, draw_weights, old_scenes, spliced
from farm.zoo.recipes.t5 import INSTRUCTION, TEXT_ROWS, padded, scenes_text_tokenizer
from farm.zoo.recipes.word_sets import word_sets
from farm.zoo.scenes.captions import caption, varied_caption
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, concatenate, generator_for, sample_scenes

_DROP = 0.1
_LONGEST_DROPPED = 64
"""No text is as long as the text that it stands beside: all its rows are trained."""
_INSTRUCTED, _LEARNED_ROWS = 0.25, 20
"""Share of captions that look as before EditInfinity learns its prompt: the instruction, then rows
of zeros. A network that never saw these takes them for a text of another kind."""
_FLIPS = 30
"""Highest share of a scale's bits that are flipped in what later scales see, in hundredths."""
_SPLICED = 0.5
"""Share of histories that keep another picture outside a region, as edits do."""
_SMALLEST_MAP = 16  # 4x4: below that a cell holds object and background alike


def scenes_infinity_config(token_bits: int, text_width: int) -> InfinityConfig:
    """Six blocks, 128 wide: 1.8 M parameters."""
    return InfinityConfig(
        width=128,
        depth=6,
        heads=4,
        hidden=512,
        token_bits=token_bits,
        text_width=text_width,
        text_rows=TEXT_ROWS,
        pool_heads=4,
    )


def scenes_infinity_spec(folder: Path, sides: tuple[int, ...] = SIDES) -> InfinitySpec:
    """What a folder of exported parts holds."""
    sizes, vae = load_transformer(folder / TRANSFORMER).config, load_vae(folder / VAE).config
    return spec_of("scenes", sizes, vae, grids=scenes_grids(sides))


class _Teacher(nn.Module):
    """Text and inputs to logits and attention in one forward, for data parallelism."""

    def __init__(self, infinity: Infinity, schedule: Schedule) -> None:
        super().__init__()
        self.infinity = infinity
        self.schedule = schedule

    def forward(
        self,
        text: Float[Tensor, "batch rows text_width"],
        present: Bool[Tensor, "batch rows"],
        dropped: Bool[Tensor, " batch"],
        inputs: Float[Tensor, "batch tokens token_bits"],
        watched: Float[Tensor, "batch sets rows"] | None,
    ) -> tuple[Float[Tensor, "batch all_tokens two_bits"], Float[Tensor, "batch _ _"] | None]:
        uncond = self.infinity.unconditional(text.shape[1])
        text = torch.where(dropped[:, None, None], uncond, text)
        # Plain products: fused attention's backward takes twice as long on a CPU with small heads.
        with sdpa_kernel(SDPBackend.MATH):
            given = self.infinity.condition(text, present)
            return self.infinity(given, inputs, self.schedule, PassOptions(watched=watched))


class InfinityRecipe:
    """Bitwise cross-entropy with self-correction and dropped captions; attention grounded on masks.

    Args:
        start_from: an Infinity folder to continue from.
        networks: where the finished autoencoder, text encoder and judge are.
        seed: of the pool's scenes.
        cache: where encoded pictures are kept.
        pool: training scenes that are encoded.
        pairs: how many of these are encoded as they were before one thing changed, too.
        two_share: share of scenes with two objects.
        grounding: weight of the grounding loss, which uses the scenes' true masks; 0 trains the
            ungrounded control.
        sides: of the autoencoder's scales.
        held_out: prompts of one object that are evaluated, and half as many of two.
    """

    name = TRANSFORMER

    def __init__(
        self,
        *,
        start_from: Path | None = None,
        networks: Path = Path("out/zoo/export"),
        seed: int = 0,
        cache: Path = Path("out/zoo/cache"),
        pool: int = 60_000,
        pairs: int = 24_000,
        two_share: float = 0.4,
        grounding: float = 0.05,
        sides: tuple[int, ...] = SIDES,
        held_out: int = 64,
    ) -> None:
        self.held_out, self.seed = held_out, seed
        self.start_from, self.networks, self.grounding = start_from, networks, grounding
        self.text = load_text_encoder(networks / TEXT)
        self.vae = load_vae(networks / VAE)
        self.schedule = scenes_schedule(self.vae.config, sides)
        self.tokenizer: TextTokenizer = scenes_text_tokenizer()
        self.cache, self.pool_size, self.two_share, self.pairs = cache, pool, two_share, pairs

    @cached_property
    def pool(self) -> FeaturePool:
        """Encoded when first needed: sampling and evaluation do without."""
        folder = self.networks / VAE
        return feature_pool(folder, self.pool_size, self.seed, self.cache, two_share=self.two_share)

    @cached_property
    def before(self) -> OldScenes:
        """What the pool's first scenes were before one thing changed."""
        some = self.pool.scenes[slice(0, self.pairs)]
        return old_scenes(self.networks / VAE, some, self.seed, self.cache, self.pool.name)

    def build(self) -> nn.Module:
        if self.start_from is not None:
            infinity = load_transformer(self.start_from).train().requires_grad_(True)
        else:
            infinity = Infinity(scenes_infinity_config(self.vae.config.bits, self.text.width))
            initialise(infinity, torch.Generator().manual_seed(0))
        # the scales' embedding has rows for scales that no schedule here has
        return _Teacher(infinity, self.schedule)

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        rows = torch.randint(len(self.pool.scenes), (batch_size,), generator=generator)
        edited = torch.rand(batch_size, generator=generator) < _SPLICED
        rows = torch.where(edited, rows % len(self.before.regions), rows)
        texts, orders = self._captions(rows, generator)
        dropped = torch.rand(batch_size, generator=generator) < _DROP
        text, present = self._rows(texts, dropped, generator)
        noisy = self._history(rows, edited, generator)
        sets, tags = word_sets(self.tokenizer, texts, orders, text.shape[1])
        watched = sets if self.grounding > 0 else None
        inputs = teacher_inputs(noisy, self.schedule)
        logits, shares = module(text, present, dropped, inputs, watched)
        found = bit_loss(logits, teacher_targets(noisy, self.schedule), self.schedule)
        loss = found.weighted.mean()
        figures = {"bits": loss.item(), "accuracy": found.accuracy.mean().item()}
        if self.grounding > 0:
            tags[dropped] = -1
            grounded = self._grounding(shares, rows, tags)
            figures["grounding"] = grounded.item()
            loss = loss + self.grounding * grounded
        return loss, figures

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Bits foretold on held-out scenes, scale by scale, and prompts that samples follow."""
        teacher = _teacher_in(module)
        figures = self._accuracy(teacher, _held_out(2 * self.held_out, 703, two_share=0.33))
        judge = load_judge(self.networks)
        wanted = concatenate(
            [
                _held_out(self.held_out, 700, two_share=0.0),
                _held_out(self.held_out // 2, 701, two_share=1.0),
            ]
        )
        return figures | match_prompts(judge, self.sample(module, wanted, seed=702), wanted)

    def sample(
        self,
        module: nn.Module,
        scenes: Scenes,
        *,
        seed: int,
        guidance: float = 3.0,
        temperature: float = 0.5,
    ) -> Float[Tensor, "scenes 3 height width"]:
        """Pictures for the scenes' canonical captions."""
        infinity = _teacher_in(module).infinity
        ids, present = padded(self.tokenizer, [caption(scenes, i) for i in range(len(scenes))])
        pictures: list[Tensor] = []
        rows = range(len(scenes))
        with torch.no_grad():
            for chunk in torch.tensor(rows).split(32):
                text, here = self.text(ids[chunk], present[chunk]), present[chunk]
                uncond = infinity.unconditional(text.shape[1]).expand_as(text)
                shape = (len(chunk), self.schedule.num_scales)
                steps = list(
                    generate(
                        infinity,
                        infinity.condition(text, here),
                        self.schedule,
                        Guidance(
                            infinity.condition(uncond, here),
                            torch.full(shape, guidance),
                            torch.full(shape, temperature),
                        ),
                        Filter(top_p=0.97),
                        KeyedNoise([seed * 100_003 + int(row) for row in chunk]),
                    )
                )
                pictures.append(self.vae.decode(steps[-1].codes))
        return torch.cat(pictures)

    def export(self, module: nn.Module, folder: Path) -> None:
        infinity = _teacher_in(module).infinity
        tensors = {n: t.half().contiguous() for n, t in infinity.state_dict().items()}
        (folder / self.name).mkdir(parents=True, exist_ok=True)
        path = folder / self.name / "model.safetensors"
        save_file(tensors, path, metadata={"format": "pt"})

    def load(self, folder: Path) -> nn.Module:
        return _Teacher(load_transformer(folder / self.name), self.schedule).eval()

    def _captions(
        self, rows: Int[Tensor, " batch"], generator: torch.Generator
    ) -> tuple[list[str], list[list[int]]]:
        """Varied captions, some with the instruction, and the objects in their order."""
        words = random.Random(int(torch.randint(2**31, (1,), generator=generator)))  # noqa: S311
        said = [varied_caption(self.pool.scenes, i, words) for i in rows.tolist()]
        texts = [text + INSTRUCTION * (words.random() < _INSTRUCTED) for text, _ in said]
        return texts, [order for _, order in said]

    def _rows(
        self, texts: list[str], dropped: Bool[Tensor, " batch"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch rows text_width"], Bool[Tensor, "batch rows"]]:
        """Text rows, zeros after the instruction, and which count; of dropped texts any number."""
        ids, present = padded(self.tokenizer, texts)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            text = self.text(ids, present)  # as precise as when edits are made
        learned = torch.tensor([_LEARNED_ROWS * text.endswith(INSTRUCTION) for text in texts])
        drawn = torch.randint(1, _LONGEST_DROPPED + 1, (len(texts),), generator=generator)
        lengths = torch.where(dropped, drawn, present.sum(1) + learned)
        most = max(int(lengths.max()), ids.shape[1])
        text = F.pad(text * present[:, :, None], (0, 0, 0, most - ids.shape[1]))
        return text, torch.arange(most) < lengths[:, None]

    def _flips(self, batch: int, generator: torch.Generator) -> list[Tensor]:
        """Each scale's bits flip at a rate drawn from 0, 0.01, … 0.30 (spec §3.3)."""
        flips: list[Tensor] = []
        for height, width in self.schedule.latent_grids:
            rate = torch.randint(_FLIPS + 1, (), generator=generator).item() / 100
            shape = (batch, self.vae.config.bits, height, width)
            flips.append(torch.rand(shape, generator=generator) < rate)
        return flips

    def _history(
        self,
        rows: Int[Tensor, " batch"],
        edited: Bool[Tensor, " batch"],
        generator: torch.Generator,
    ) -> Quantised:
        """The scenes' bits, some as they are while another picture is kept around them."""
        new, flips = self.pool.features[rows].float(), self._flips(len(rows), generator)
        old, regions = (
            tensor[rows % len(tensor)].float()
            for tensor in (self.before.features, self.before.regions)
        )
        weight = draw_weights(regions, self.schedule.latent_size, generator)
        return spliced(new, old, weight * edited[:, None, None, None], self.schedule, flips)

    def _grounding(
        self,
        shares: Float[Tensor, "batch sets tokens"],
        rows: Int[Tensor, " batch"],
        tags: Int[Tensor, "batch sets"],
    ) -> Float[Tensor, ""]:
        """Grounding of every scale of 4x4 and more, mean over blocks and heads."""
        pieces = shares.float().split(self.schedule.lengths, dim=2)
        maps = [piece.transpose(1, 2) for piece in pieces if piece.shape[2] >= _SMALLEST_MAP]
        masks = self.pool.masks[rows].float()
        return grounding_loss(maps, masks, tags, torch.ones(len(rows)))

    def _accuracy(self, teacher: _Teacher, scenes: Scenes) -> dict[str, float]:
        ids, present = padded(self.tokenizer, [caption(scenes, i) for i in range(len(scenes))])
        with torch.no_grad():
            found = quantise(self.vae.encode(render(scenes).images), self.schedule)
            logits, _ = teacher(
                self.text(ids, present),
                present,
                torch.zeros(len(scenes), dtype=torch.bool),
                teacher_inputs(found, self.schedule),
                None,
            )
        accuracy = bit_loss(logits, teacher_targets(found, self.schedule), self.schedule).accuracy
        sides = [height for height, _ in self.schedule.grids]
        by_scale = dict(zip(sides, accuracy.mean(0).tolist(), strict=True))
        return {f"accuracy_{side}": value for side, value in by_scale.items()}


def _held_out(count: int, seed: int, *, two_share: float) -> Scenes:
    generator = generator_for("heldout", seed)
    return sample_scenes(count, generator, split="heldout", two_share=two_share)


def infinity_in(module: nn.Module) -> Infinity:
    """The transformer in what the recipe builds and loads."""
    return _teacher_in(module).infinity


def _teacher_in(module: nn.Module) -> _Teacher:
    inner = getattr(module, "module", module)  # under data parallelism
    assert isinstance(inner, _Teacher)
    return inner
