"""Metrics against the vectors of the released programs; `consumed` collects what was compared.

Plain functions, so that the parity test of the whole set and the metrics' own tests share them.
Sizes, masks, words and rules are read from the set.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from farm.images import decode_image
from farm.metrics.ns_lpips import RELEASED, ns_pictures, ns_weight
from farm.metrics.ns_mask import average_attention, background, foreground, released_token
from farm.metrics.pie import region_mse, region_psnr, region_ssim
from farm.metrics.pie_masks import Region, decode_runs, weight_of
from farm.metrics.structure import joined_heads, self_similarity, structure_distance

CASES = ("check_pie_metrics", "check_nsmask", "check_nscomposite", "check_selfsim")


def check_pie_metrics(golden: Path, consumed: set[str]) -> None:
    """RLE mask with its forced border; PSNR, SSIM and MSE of each region in the frame's average."""
    stored = _json(golden, "pie_metrics")
    source, edited = _pair(golden, stored)
    mask = decode_runs(stored["rle"], height=source.shape[-2], width=source.shape[-1])[None]
    assert mask.sum().item() == stored["mask_sum"]
    rows = stored["mask_rows_sum_sample"]
    assert mask[0, 0, : len(rows)].sum(dim=1).tolist() == rows
    measures = {"psnr": region_psnr, "ssim": region_ssim, "mse": region_mse}
    regions: tuple[Region, ...] = ("whole", "unedited", "edited")
    assert set(regions) == stored["values"].keys()
    for region in regions:
        expected = stored["values"][region]
        weight = weight_of(mask, region)
        found = {
            name: measure(source, edited, weight, "released").item()
            for name, measure in measures.items()
        }
        # the program sums in float32: 1e-6 relative of an error; of that, 4e-6 dB; its SSIM of a
        # difference of squares near 1 against 1e-4 has 1e-5
        assert found["mse"] == pytest.approx(expected["mse"], rel=2e-6)
        assert found["psnr"] == pytest.approx(expected["psnr"], abs=1e-5)
        assert found["ssim"] == pytest.approx(expected["ssim"], abs=2e-5)
        assert found.keys() == expected.keys()
    compared = ("rle", "mask_sum", "mask_rows_sum_sample", "edit_box", "edited_rule", "values")
    consumed |= {f"pie_metrics.{name}" for name in compared}


def check_nsmask(golden: Path, consumed: set[str]) -> None:
    """Background mask of NS-LPIPS from maps of a word; pictures equal to the last level."""
    stored, vectors = _json(golden, "nsmask"), load_file(golden / "nsmask.safetensors")
    maps = vectors["in_maps_word"]  # (steps, layers, heads, pixels)
    assert (len(maps), maps.shape[2]) == (stored["steps"], stored["heads"])
    assert released_token(stored["prompt"], stored["blend"][0][0]) == stored["token_index"]
    averaged = average_attention(list(maps.unbind(1)), heads="upper")
    # README: maps 1e-4 relative to the largest; a mean of 32-bit numbers has 1e-7
    torch.testing.assert_close(averaged, vectors["averaged"], rtol=0, atol=1e-6)
    assert torch.equal(foreground(averaged), vectors["fg"])
    assert torch.equal(background(averaged), vectors["bg"])
    about = ("prompt", "blend", "steps", "token_index", "heads")
    consumed |= {f"nsmask.{name}" for name in (*about, "in_maps_word", "averaged", "fg", "bg")}


def check_nscomposite(golden: Path, consumed: set[str]) -> None:
    """What LPIPS is fed: both pictures scaled and multiplied by the soft mask."""
    vectors = load_file(golden / "nscomposite.safetensors")
    mask = background(load_file(golden / "nsmask.safetensors")["averaged"])
    pair = _pair(golden, _json(golden, "pie_metrics"))
    source, edited = (ns_pictures(picture[0], mask, RELEASED) for picture in pair)
    weight = ns_weight(mask, RELEASED).expand_as(source)
    found = {"mask_sub": weight, "source_bg_sub": source, "edited_bg_sub": edited}
    for name, whole in found.items():
        stride = whole.shape[-1] // vectors[name].shape[-1]
        # sums of three rounded products of the program's grey: 2e-7
        torch.testing.assert_close(whole[:, ::stride, ::stride], vectors[name], rtol=0, atol=5e-7)
    means = torch.stack([source.double().mean(), edited.double().mean()])
    torch.testing.assert_close(means, vectors["means"], rtol=0, atol=1e-7)
    consumed |= {f"nscomposite.{name}" for name in (*found, "means")}


def check_selfsim(golden: Path, consumed: set[str]) -> None:
    """Cosine self-similarity of keys and the structure distance."""
    vectors = load_file(golden / "selfsim.safetensors")
    first, second = (joined_heads(vectors[name][None]) for name in ("keys_a", "keys_b"))
    torch.testing.assert_close(self_similarity(first), vectors["selfsim_a"], rtol=0, atol=1e-6)
    distance = structure_distance(first, second)
    torch.testing.assert_close(distance, vectors["distance"], rtol=1e-5, atol=0)
    consumed |= {f"selfsim.{name}" for name in ("keys_a", "keys_b", "selfsim_a", "distance")}


def _json(golden: Path, name: str) -> dict[str, Any]:
    return json.loads((golden / f"{name}.json").read_text())


def _pair(golden: Path, stored: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """image.png and its edit by the set's rule ("edited_rule"), in [0, 1] with a batch axis."""
    pixels = np.array(Image.open(golden / "image.png").convert("RGB")).astype(int)
    top, bottom, left, right = stored["edit_box"]
    edited = pixels.copy()
    edited[top:bottom, left:right] = 255 - edited[top:bottom, left:right]
    edited += (np.arange(edited.shape[1]) % 7 - 3)[None, :, None]
    changed = torch.from_numpy(edited.clip(0, 255)).permute(2, 0, 1).float() / 255
    source = decode_image((golden / "image.png").read_bytes()).image
    return source[None], changed[None]
