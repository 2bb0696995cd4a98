"""The frozen side: schedule, DDIM latents, recorded maps, image tokens, the picture's loading."""

import re

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from farm.adapters.attention import AttentionControl
from farm.diffusion import NoiseQuery
from farm.images import fit_to_model
from farm.samplers.ddim import NoiseSchedule, ddim_invert
from tests.parity.golden_set import GoldenSet, relative


def check_sizes(stored: GoldenSet) -> None:
    """What the set says of its networks is what they have."""
    unet = stored.networks.unet.unet
    heads = {m.heads for name, m in unet.named_modules() if name.endswith(("attn1", "attn2"))}
    assert heads == {stored.meta["heads"]}
    assert stored.spec.text_width == stored.meta["D"]
    prompts = {
        edit["target"]: edit["prompts"] for edit in stored.consumed.open("edits.json").values()
    }
    for name, prompt in stored.meta["targets"].items():
        assert f"ctx_{name}" in stored.ddim
        assert prompts.get(name, [None, prompt])[1] == prompt


def check_schedule(stored: GoldenSet) -> None:
    schedule = NoiseSchedule.from_spec(stored.spec)
    assert schedule.timesteps(stored.meta["T"]) == stored.ddim["timesteps"].tolist()
    assert stored.meta["timesteps"] == stored.ddim["timesteps"].tolist()
    # float32 products of 1000 factors, in whatever order
    expected = stored.ddim["alphas_cumprod"]
    torch.testing.assert_close(schedule.alphas_cumprod, expected, rtol=1e-5, atol=0)


def check_ddim_latents(stored: GoldenSet) -> None:
    def denoiser(latents: Tensor, timestep: int) -> Tensor:
        query = NoiseQuery(latents, timestep, stored.ddim["ctx_source"][0])
        return stored.client.noise(query, keep_maps=True)

    start, expected = stored.ddim["z0"], stored.ddim["latents"]
    assert torch.equal(start[0], expected[0])
    moves = NoiseSchedule.from_spec(stored.spec).inverting(stored.meta["T"])
    levels = list(ddim_invert(denoiser, start[0], moves))
    for actual, level in zip(levels, expected[1:], strict=True):
        assert relative(actual, level) < 1e-5  # README: ddim 1e-5


def _inversion_maps(stored: GoldenSet, step: int) -> list[Tensor]:
    """Maps of inversion step `step`, which sees the step's latents at the next timestep."""
    timestep = stored.ddim["timesteps"].flip(0)[step : step + 1]
    control = AttentionControl(record_pixels=stored.spec.map_size**2)
    latents = stored.ddim["latents"][step : step + 1]
    with torch.no_grad():
        stored.networks.unet(latents, timestep, stored.ddim["ctx_source"], control)
    return [maps[0] for maps in control.maps]


def check_inversion_maps(stored: GoldenSet) -> None:
    for step in stored.meta["attn_keep"]:
        prefix = f"attn_inv_k{step}_layer"
        names = sorted(name for name in stored.ddim if name.startswith(prefix))
        found = _inversion_maps(stored, step)
        assert names == [f"{prefix}{layer}" for layer in range(len(found))]
        for name, maps in zip(names, found, strict=True):
            assert relative(maps, stored.ddim[name]) < 1e-4  # README: maps 1e-4


def check_map_statistics(stored: GoldenSet) -> None:
    for step, expected in enumerate(stored.ddim["attn_inv_stats"], 1):
        maps = [m.double() for m in _inversion_maps(stored, step)]
        found = [torch.stack([m.square().sum(), m[..., 1].mean(), m.max()]) for m in maps]
        torch.testing.assert_close(torch.stack(found), expected, rtol=1e-4, atol=0)  # as above


def _picture(stored: GoldenSet) -> Tensor:
    stored.consumed.names.add("image")
    return pil_to_tensor(Image.open(stored.golden / "image.png").convert("RGB")).float() / 255


def check_image_tokens(stored: GoldenSet) -> None:
    """E of the whole picture, and its input, which is resized without antialiasing (spec §3)."""
    image = _picture(stored)
    pixels = stored.networks.image.pixels(image[None])
    expected = stored.mapping["pixels_sub"]
    stride = -(-pixels.shape[-1] // expected.shape[-1])
    torch.testing.assert_close(pixels[..., ::stride, ::stride], expected, rtol=0, atol=1e-5)
    # two layers in float32
    assert relative(stored.client.image_tokens(image), stored.mapping["features"][0]) < 1e-5


def check_loading(stored: GoldenSet) -> None:
    """Cropped by the user's offsets, then as every picture: centre square, bicubic (spec §1)."""
    about = stored.consumed.open("load512.json")
    expected = stored.consumed.open("load512.safetensors")["out_sub"]
    rows, columns = map(int, re.findall(r":(\d+)", about["input"]))
    stride, *size = map(int, re.findall(r"\d+", about["out"]))
    left, right, top, bottom = about["offsets_left_right_top_bottom"]
    image = _picture(stored)[:, top : rows - bottom, left : columns - right]
    loaded, _ = fit_to_model(image, size[0])
    found = (loaded * 255).round()[:, ::stride, ::stride].permute(1, 2, 0)
    # Pillow computes with 8-bit rounding between its two passes: a level here and there
    assert (found - expected.float()).abs().max() <= 1
    assert (found != expected.float()).float().mean() < 0.05
