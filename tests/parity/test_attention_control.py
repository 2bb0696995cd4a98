"""Golden vectors of editing: controllers on synthetic maps, and whole edits on tiny networks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from farm.adapters.attention import PairEdits, controlled_self, edited_maps, pair_edits
from farm.diffusion import DiffusionClient, NoiseQuery
from farm.samplers.ddim import NoiseSchedule, ddim_step
from farm.samplers.guidance import guide
from tests.parity.conftest import load_float
from tests.parity.golden_edits import (
    GoldenEdit,
    alignment_of,
    blended,
    edit_step,
    equalizer_of,
    mapper_of,
    modulation,
    watched_tokens,
)

EDIT = 1e-4
"""Of the largest latent (README of the set, which measured 3e-5 over a whole edit)."""


def assert_near(actual: Tensor, expected: Tensor, relative: float) -> None:
    worst = (actual - expected).abs().max() / expected.abs().max()
    assert worst <= relative, f"largest difference {worst:.2e} of the maximum"


def controllers(golden: Path) -> list[dict[str, Any]]:
    return json.loads((golden / "p2p.json").read_text())["controllers"]


def controller_edits(golden: Path, entry: dict[str, Any], step: int) -> PairEdits:
    alignment = alignment_of(golden, entry["prompts"])
    mapper, refine_alpha = mapper_of(entry["type"], alignment)
    cross_open = step < int((entry["steps"] + 1) * entry["tau_c"])
    return pair_edits(
        mapper=mapper[None],
        refine_alpha=refine_alpha[None],
        equalizer=equalizer_of(entry["eq"], alignment)[None],
        cross_alpha=torch.full((1, len(mapper)), float(cross_open)),
        self_active=torch.tensor(
            [[step < int(entry["steps"] * entry[tau]) for tau in ("tau_u", "tau_s")]]
        ),
        self_pixels=1024,
    )


def test_cross_maps_of_each_controller_and_step(golden: Path) -> None:
    vectors = load_file(golden / "p2p.safetensors")
    source, target = vectors["in_cross"].unflatten(0, (2, 1, -1))
    for entry in controllers(golden):
        for row, step in enumerate(entry["kept_steps"]):
            found = edited_maps(source, target, controller_edits(golden, entry, step))
            expected = vectors[f"{entry['name']}.cross"][row]
            torch.testing.assert_close(torch.cat([source, found]).flatten(0, 1), expected)


def test_self_maps_of_each_controller_and_step(golden: Path) -> None:
    """Queries log(p)·√d against the identity's keys attend with p, and show it as output.

    The set's maps are rounded, so their rows sum to 1 within 3e-4; attention's always do.
    """
    vectors = load_file(golden / "p2p.safetensors")
    maps = vectors["in_self"].unflatten(0, (2, -1))
    size = maps.shape[-1]
    rows = torch.cat([maps, maps])  # both branches see the same maps
    identity = torch.eye(size).expand_as(rows)
    for entry in controllers(golden):
        for row, step in enumerate(entry["kept_steps"]):
            edits = controller_edits(golden, entry, step)
            found = controlled_self(rows.log() * size**0.5, identity, identity, edits)
            uncond, cond = found.unflatten(0, (2, 2)).flatten(1, 2)
            for maps_found, kind in ((cond, "self"), (uncond, "uncond_self")):
                stored = vectors[f"{entry['name']}.{kind}"][row]
                expected = stored / stored.sum(dim=-1, keepdim=True)
                torch.testing.assert_close(maps_found, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def edits(golden: Path) -> list[dict[str, Any]]:
    return json.loads((golden / "edits.json").read_text())


@pytest.fixture(scope="module")
def modulations(golden: Path, golden_meta: dict[str, Any]) -> list[tuple[Tensor, ...]]:
    weights = load_file(golden / "mapping_final_half.safetensors")
    features = load_file(golden / "mapping.safetensors")["features"]
    return [modulation(weights, index, features) for index in range(golden_meta["T"])]


def golden_edit(
    golden: Path,
    entry: dict[str, Any],
    ddim: dict[str, Tensor],
    modulations: list[tuple[Tensor, ...]],
) -> GoldenEdit:
    alignment = alignment_of(golden, entry["prompts"])
    return GoldenEdit(
        entry,
        alignment,
        torch.cat([ddim["ctx_source"], ddim[f"ctx_{entry['target']}"]]),
        ddim["ctx_uncond"][0],
        modulations,
        watched_tokens(entry["blend"], alignment),
    )


def test_whole_edits(
    golden: Path,
    golden_client: DiffusionClient,
    golden_ddim: dict[str, Tensor],
    golden_meta: dict[str, Any],
    edits: list[dict[str, Any]],
    modulations: list[tuple[Tensor, ...]],
) -> None:
    """Latents of every kept step, the blend words' scores and the average maps."""
    vectors = load_file(golden / "edits.safetensors")
    for entry in (e for e in edits if e["target"] is not None):
        edit = golden_edit(golden, entry, golden_ddim, modulations)
        name, steps = entry["name"], edit.steps
        expected = vectors[f"{name}.latents"]
        masks = vectors.get(f"{name}.blend_mask", torch.empty(0))
        latents = golden_ddim["latents"][-1:].repeat(2, 1, 1, 1)
        total = torch.zeros(2, golden_client.spec.map_size, golden_client.spec.map_size)
        for step in range(steps):
            latents, noise = edit_step(golden_client, edit, step, latents, golden_meta["guidance"])
            total += noise.scores
            call = step - (steps - len(masks))
            if len(masks) and call >= 0:
                score = vectors[f"{name}.blend_score"][call, :, 0]
                assert_near(total, score, EDIT)
                latents = blended(latents, masks[call])
            if len(expected) == steps:
                assert_near(latents, expected[step], EDIT)
        assert_near(latents, expected[-1], EDIT)
        average = vectors[f"{name}.avg_cross16"]
        for row, tokens in enumerate(edit.watched):
            assert_near(total[row] / steps, average[row, :, :, tokens].sum(dim=-1), EDIT)


def test_reconstruction(
    golden: Path,
    golden_client: DiffusionClient,
    golden_ddim: dict[str, Tensor],
    golden_meta: dict[str, Any],
    modulations: list[tuple[Tensor, ...]],
) -> None:
    """The set's StoreAttn entry: the source alone, with learned values at every step."""
    source, uncond = golden_ddim["ctx_source"][0], golden_ddim["ctx_uncond"][0]
    latents = golden_ddim["latents"][-1]
    moves = NoiseSchedule.from_spec(golden_client.spec).denoising(len(modulations))
    for move, (scale, shift) in zip(moves, modulations, strict=True):
        free, cond = golden_client.noises(
            [
                NoiseQuery(latents, move.timestep, uncond),
                NoiseQuery(latents, move.timestep, source, source * scale + shift),
            ]
        )
        guided = guide(free, cond, golden_meta["guidance"])
        latents = ddim_step(latents, guided, move.alpha, move.alpha_to)
    assert_near(latents, load_file(golden / "edits.safetensors")["store.latents"][-1, 0], EDIT)


def test_edit_with_the_block_layout_of_stable_diffusion(
    golden: Path, full64_client: DiffusionClient, golden_meta: dict[str, Any]
) -> None:
    """Self-attention of the full latent size is neither recorded nor replaced."""
    meta = json.loads((golden / "full64" / "meta.json").read_text())
    vectors = load_float(golden / "full64" / "edit.safetensors")
    entry = {**meta, "type": meta["edit"], "eq": meta["equalizer"]}
    alignment = alignment_of(golden, meta["prompts"])
    edit = GoldenEdit(
        entry,
        alignment,
        torch.cat([vectors["ctx_source"], vectors["ctx_target"]]),
        vectors["ctx_uncond"][0],
        [modulation(vectors, index, vectors["features"]) for index in range(meta["T"])],
        watched_tokens(meta["blend"], alignment),
    )
    latents = vectors["z_start"].repeat(2, 1, 1, 1)
    for step, (expected, mask) in enumerate(
        zip(vectors["latents"], vectors["blend_mask"], strict=True)
    ):
        latents, _ = edit_step(full64_client, edit, step, latents, golden_meta["guidance"])
        latents = blended(latents, mask)
        assert_near(latents, expected, EDIT)
