"""The reference schedules as straightforward programs: batch 1, single precision, one process.

Written from the specs' descriptions (specs/style_diffusion.md §9, specs/learnable_regions.md §1.8)
as the base of the ratios; they compute what the released programs compute, the way these
do: nothing frozen, attention probabilities materialised, the image encoder run again in every
cross-attention layer. A whole run takes minutes and consists of equal steps, so some of each kind
are timed and multiplied by the specs' counts; every report says how many.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.gpu.timing import median_seconds
from farm.backbones.clip import ImageEncoder
from farm.backbones.filling import fill, on_meta
from farm.backbones.hub_names import fitted
from farm.backbones.weight_files import read_weights
from farm.zoo.model_sets import ModelSet

STYLE_DIFFUSION: Mapping[str, int] = MappingProxyType(
    {"forward": 1135, "forward_backward": 1015, "edit_forward": 150}
)
"""Passes of one edit with 30 steps of at most 100 (spec §9): `forward` includes those that have a
backward; the edit's are per sample."""
LEARNABLE_REGIONS: Mapping[str, int] = MappingProxyType({"renders": 99, "unet_calls": 51})
"""Renders of one edit (README: 11 calls of 9), and UNet calls of a render with PNDM of 50 steps."""
_GUIDANCE = 7.5


@dataclass(frozen=True)
class ReferenceNetworks:
    """Networks as a plain script has them: nothing frozen, attention by its formula."""

    unet: UNet2DConditionModel
    encoder: ImageEncoder
    cross_layers: int
    device: str


def load_reference(models: ModelSet, device: str, part: str = "unet") -> ReferenceNetworks:
    """The same weights, in single precision, for the straightforward program."""
    folder = models.folder / part
    config = UNet2DConditionModel.load_config(folder, local_files_only=True)
    unet: Any = on_meta(lambda: UNet2DConditionModel.from_config(config))
    state = fitted(read_weights(folder), unet.state_dict())
    fill(unet, state, str(folder), lambda _: torch.float32, device)
    unet.requires_grad_(True)
    unet.set_attn_processor(AttnProcessor())
    vision = CLIPVisionConfig.from_pretrained(models.folder / "image_encoder")
    tower = on_meta(lambda: CLIPVisionModel(vision))
    state = fitted(read_weights(models.folder / "image_encoder"), tower.state_dict())
    fill(tower, state, "image_encoder", lambda _: torch.float32, device)
    encoder = ImageEncoder(tower).to(device)
    tower.requires_grad_(True)
    layers = sum(name.endswith("attn2.processor") for name in unet.attn_processors)
    return ReferenceNetworks(unet, encoder, layers, device)


@contextmanager
def as_torch_is() -> Generator[None]:
    """Single precision as a plain script has it: convolutions in TF32, whatever the farm has set.

    So the base is not slower because a benchmark ran before.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def style_diffusion_seconds(
    networks: ReferenceNetworks, models: ModelSet, *, rounds: int
) -> dict[str, float]:
    """Seconds of each kind of step, and of one edit by the spec's counts."""
    spec, device = models.spec, networks.device
    generator = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    latents, target = drawn(1, *spec.latent_shape), drawn(1, *spec.latent_shape)
    embeds = drawn(1, spec.tokens, spec.text_width)
    image = torch.rand(1, 3, spec.image_size, spec.image_size, generator=generator, device=device)
    timestep = torch.tensor([500], device=device)
    values = torch.nn.Parameter(embeds.clone())
    optimizer = torch.optim.Adam([values], lr=1e-3)

    def encoded() -> None:
        for _ in range(networks.cross_layers):  # once in every cross-attention layer
            networks.encoder(image)

    def forward() -> None:
        with torch.no_grad():
            encoded()
            networks.unet(latents, timestep, embeds)

    def step() -> None:
        tokens = [networks.encoder(image) for _ in range(networks.cross_layers)]
        learned = values + sum(t.mean() for t in tokens) * 0
        predicted = networks.unet(latents, timestep, learned).sample
        loss = (predicted - target).square().mean()
        optimizer.zero_grad()
        loss.backward()  # gradients of all weights too, which nobody reads
        loss.item()
        optimizer.step()

    def edit_forward() -> None:
        with torch.no_grad():
            networks.unet(latents, timestep, embeds)

    seconds = {
        "reference_forward_seconds": median_seconds(forward, rounds=rounds, warm_up=1),
        "reference_step_seconds": median_seconds(step, rounds=rounds, warm_up=1),
        "reference_edit_forward_seconds": median_seconds(edit_forward, rounds=rounds, warm_up=1),
    }
    for parameter in [*networks.unet.parameters(), *networks.encoder.parameters()]:
        parameter.grad = None
    counts = STYLE_DIFFUSION
    alone = counts["forward"] - counts["forward_backward"]
    seconds["reference_edit_seconds"] = (
        counts["forward_backward"] * seconds["reference_step_seconds"]
        + alone * seconds["reference_forward_seconds"]
        + counts["edit_forward"] * seconds["reference_edit_forward_seconds"]
    )
    return seconds


def render_seconds(
    networks: ReferenceNetworks, models: ModelSet, decode: Any, *, rounds: int
) -> dict[str, float]:
    """Seconds of a UNet call under guidance, of decoding, and of 99 renders one by one.

    As released in half precision: the UNet is under autocast.
    """
    spec, device = models.spec, networks.device
    generator = torch.Generator(device).manual_seed(0)
    channels = 2 * spec.latent_channels + 1
    inputs = torch.randn(
        2, channels, spec.latent_size, spec.latent_size, generator=generator, device=device
    )
    embeds = torch.randn(2, spec.tokens, spec.text_width, generator=generator, device=device)
    timestep = torch.tensor(500, device=device)
    half = torch.float16 if torch.device(device).type == "cuda" else torch.bfloat16

    def call() -> None:
        with torch.no_grad(), torch.autocast(torch.device(device).type, dtype=half):
            uncond, cond = networks.unet(inputs, timestep, embeds).sample.chunk(2)
            torch.lerp(uncond, cond, _GUIDANCE)

    per_call = median_seconds(call, rounds=rounds, warm_up=1)
    per_decode = median_seconds(decode, rounds=max(1, rounds // 2), warm_up=1)
    counts = LEARNABLE_REGIONS
    return {
        "reference_unet_call_seconds": per_call,
        "reference_decode_seconds": per_decode,
        "reference_edit_seconds": counts["renders"]
        * (counts["unet_calls"] * per_call + per_decode),
    }
