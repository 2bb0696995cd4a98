"""The BSQ autoencoder of the scenes world: pictures as bits of six scales, and back.

The released class at a fiftieth of its size, trained from end to end: gradients pass the quantiser
straight through, and what the encoder gives is drawn towards what its bits can say.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from farm.backbones.infinity.bsq_vae import BsqVae, BsqVaeConfig
from farm.backbones.infinity.loading import GROUPS, load_vae
from farm.backbones.infinity.networks import VAE
from farm.backbones.infinity.quantiser import quantise
from farm.backbones.infinity.schedules import Grid, Schedule, own_schedule
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import SIZE

SIDES = (1, 2, 3, 4, 6, 8)
"""130 tokens a picture."""
BITS = 32
_GROUPS = 8
_OBJECT_WEIGHT = 3.0  # small dots and corners are what a plain mean forgets
_ABSOLUTE = 0.3
_COMMITMENT = 0.1
_EARLY = 0.1


def scenes_grids(sides: tuple[int, ...] = SIDES) -> tuple[Grid, ...]:
    return tuple((side, side) for side in sides)


def scenes_schedule(config: BsqVaeConfig, sides: tuple[int, ...] = SIDES) -> Schedule:
    """The scales of the scenes world's pictures."""
    schedule = own_schedule(scenes_grids(sides), cell=1, stride=config.stride)
    assert schedule.image_size == (SIZE, SIZE)
    return schedule


def scenes_vae_config(bits: int = BITS) -> BsqVaeConfig:
    """Four levels: 64x64 pictures to 8x8 cells."""
    return BsqVaeConfig(
        bits=bits,
        base=24,
        multipliers=(1, 2, 3, 4),
        encoder_blocks=1,
        decoder_blocks=2,
        groups=_GROUPS,
    )


class _Reconstruction(nn.Module):
    """Encode, quantise, decode in one forward, so that data parallelism sees one call."""

    def __init__(self, vae: BsqVae, schedule: Schedule) -> None:
        super().__init__()
        self.vae = vae
        self.schedule = schedule

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], scales: int
    ) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, ""]]:
        """Pictures in [-1, 1] from the first `scales` scales, not clamped, and the commitment."""
        features = self.vae.encode(images).float()  # without a graph where the encoder is frozen
        codes = quantise(features.detach(), self.schedule).history[scales - 1]
        commitment = (features - codes).square().mean()
        return self.vae.decoder(features + (codes - features).detach()), commitment


@dataclass(frozen=True)
class BsqVaeRecipe:
    """Weighted squared and absolute error, and a commitment of the features to their codes.

    A tenth of the batches are decoded from the scales before the last, so that coarse scales alone
    make a picture too.

    With `only_decoder` what pictures are as bits stays as it is, and with it every network that was
    trained on them; they are drawn better.
    """

    start_from: Path | None = None
    """A folder to continue from."""
    sides: tuple[int, ...] = SIDES
    bits: int = BITS
    held_out: int = 256
    """Pictures that are evaluated."""
    name: str = VAE
    only_decoder: bool = False

    def build(self) -> nn.Module:
        if self.start_from is not None:
            vae = load_vae(self.start_from).train().requires_grad_(True)
        else:
            with torch.random.fork_rng():
                torch.random.manual_seed(0)
                vae = BsqVae(scenes_vae_config(self.bits))
        vae.encoder.requires_grad_(not self.only_decoder)
        return _Reconstruction(vae, scenes_schedule(vae.config, self.sides))

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        drawn = render(sample_scenes(batch_size, generator, split="train", two_share=0.5))
        last = len(self.sides)
        early = torch.rand((), generator=generator).item() < _EARLY
        scales = int(torch.randint(1, last, (), generator=generator)) if early else last
        decoded, commitment = module(drawn.images, scales)
        error = decoded.float() - (drawn.images * 2 - 1)
        weight = 1 + _OBJECT_WEIGHT * drawn.masks.amax(1, keepdim=True)
        loss = (weight * (error.square() + _ABSOLUTE * error.abs())).mean()
        # early scales are not asked to say what the features are
        loss = loss + _COMMITMENT * (0.0 if early else 1.0) * commitment
        figures = {"mse": error.square().mean().item(), "commitment": commitment.item()}
        return loss, figures

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """PSNR after each scale, and how often each bit is one: half of the time at best."""
        vae = module.get_submodule("vae")
        assert isinstance(vae, BsqVae)
        schedule = scenes_schedule(vae.config, self.sides)
        images = render(
            sample_scenes(self.held_out, generator_for("heldout", 999), split="heldout")
        ).images
        with torch.no_grad():
            found = quantise(vae.encode(images), schedule)
            few = len(images) // 4  # the last scale alone is worth all of them
            decoded = [vae.decode(codes[:few]) for codes in found.history[:-1]]
            decoded.append(vae.decode(found.codes))
        figures: dict[str, float] = {}
        for side, pictures in zip(self.sides, decoded, strict=True):
            error = (pictures - images[: len(pictures)]).square().mean((1, 2, 3))
            figures[f"psnr_{side}"] = -10 * error.log10().mean().item()
        ones = torch.cat([bits.float().flatten(2) for bits in found.bits], dim=2).mean((0, 2))
        figures["psnr"] = figures[f"psnr_{self.sides[-1]}"]
        figures["least_used_bit"] = torch.minimum(ones, 1 - ones).min().item()
        return figures

    def export(self, module: nn.Module, folder: Path) -> None:
        vae = module.get_submodule("vae")
        assert isinstance(vae, BsqVae)
        tensors = {n: t.half().contiguous() for n, t in vae.state_dict().items()}
        (folder / self.name).mkdir(parents=True, exist_ok=True)
        metadata = {"format": "pt", GROUPS: str(vae.config.groups)}
        save_file(tensors, folder / self.name / "model.safetensors", metadata=metadata)

    def load(self, folder: Path) -> nn.Module:
        vae = load_vae(folder / self.name)
        return _Reconstruction(vae, scenes_schedule(vae.config, self.sides)).eval()
