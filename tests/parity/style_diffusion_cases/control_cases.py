"""Attention control and local blend on synthetic maps."""

from typing import Any

import torch
from torch import Tensor

from farm.adapters.attention import (
    TargetEdits,
    controlled_self,
    edited_maps,
    target_edits,
)
from farm.methods.style_diffusion.blend import blend, blend_active, region, widen
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.plan import plan_edit
from farm.methods.style_diffusion.windows import self_active, window_of
from farm.methods.style_diffusion.words import Tokens, find_words
from tests.parity.golden_set import GoldenSet

LAYER = "down_blocks.0"
TYPES = {"Replacement": "replace", "Refinement": "refine"}


def editing_config(case: dict[str, Any], **changes: Any) -> EditingConfig:
    """The set's own words for an edit as a configuration."""
    words = case.get("blend") or [None, None]
    fields = {
        "tau_c": case["tau_c"],
        "tau_s": case["tau_s"],
        "tau_u": case["tau_u"],
        "edit_type": TYPES[case.get("type") or case["edit"]],
        "equalizer": tuple(
            zip(*(case.get("eq") or case.get("equalizer") or [[], []]), strict=True)
        ),
        "local_blend": words[0] is not None,
        "source_words": words[0],
        "target_words": words[1],
        "reference": True,
    }
    return EditingConfig(**(fields | changes))


def _edits(stored: GoldenSet, case: dict[str, Any], step: int) -> TargetEdits:
    """One step of a controller; its source's self-attention is log(p)·√d against the identity."""
    config = editing_config(case)
    source, target = (stored.tokens[prompt] for prompt in case["prompts"])
    steps = case["steps"]
    plan = plan_edit(source, target, config, steps)
    active = [self_active(step, steps, window_of(tau)) for tau in (config.tau_u, config.tau_s)]
    maps = _self_maps(stored)[:1]
    states = {LAYER: (_query_of(maps)[0], _identity(maps)[0])}
    return target_edits(
        mapper=plan.token_map.mapper[None],
        refine_alpha=plan.token_map.alpha[None],
        equalizer=plan.equalizer[None],
        cross_alpha=plan.cross_alpha[step][None],
        self_active=torch.tensor([active]),
        self_pixels=1024,
        free=[states],
        prompted=[states],
    )


def _self_maps(stored: GoldenSet) -> Tensor:
    """(source and target, heads, pixels, pixels)."""
    return stored.consumed.open("p2p.safetensors")["in_self"].unflatten(0, (2, -1))


def _query_of(maps: Tensor) -> Tensor:
    """Queries that, against the identity's keys, look with `maps`."""
    return maps.log() * maps.shape[-1] ** 0.5


def _identity(maps: Tensor) -> Tensor:
    return torch.eye(maps.shape[-1]).expand_as(maps)


def check_cross_control(stored: GoldenSet) -> None:
    """Edited maps of each controller at the stored steps, and their sum over all steps."""
    vectors = stored.consumed.open("p2p.safetensors")
    source, target = vectors["in_cross"].unflatten(0, (2, 1, -1))
    for case in stored.consumed.open("p2p.json")["controllers"]:
        total = torch.zeros_like(vectors["in_cross"])
        for step in range(case["steps"]):
            found = edited_maps(source, target, _edits(stored, case, step))
            both = torch.cat([source, found]).flatten(0, 1)
            total += both
            if step in case["kept_steps"]:
                expected = vectors[f"{case['name']}.cross"][case["kept_steps"].index(step)]
                torch.testing.assert_close(both, expected)  # one product of 77 terms
        torch.testing.assert_close(total, vectors[f"{case['name']}.stored_cross_sum"])


def check_self_control(stored: GoldenSet) -> None:
    """Self-attention of the target at the stored steps, without the prompt and with it.

    The set's maps are rounded, so their rows sum to 1 within 3e-4; attention's always do.
    """
    vectors = stored.consumed.open("p2p.safetensors")
    maps = _self_maps(stored)
    rows = torch.stack([maps[1], maps[1]])  # the target in both branches
    for case in stored.consumed.open("p2p.json")["controllers"]:
        for row, step in enumerate(case["kept_steps"]):
            edits = _edits(stored, case, step)
            free, prompted = controlled_self(
                _query_of(rows), _identity(rows), _identity(rows), edits, LAYER
            )
            for found, kind in ((prompted, "self"), (free, "uncond_self")):
                expected = vectors[f"{case['name']}.{kind}"][row]
                expected = expected / expected.sum(dim=-1, keepdim=True)
                both = torch.cat([maps[0] / maps[0].sum(dim=-1, keepdim=True), found])
                torch.testing.assert_close(both, expected, rtol=1e-5, atol=1e-6)


def check_local_blend(stored: GoldenSet) -> None:
    vectors, about = (stored.consumed.open(f"p2p.{kind}") for kind in ("safetensors", "json"))
    for case in about["blends"]:
        name = case["name"]
        tokens = [stored.tokens[prompt] for prompt in case["prompts"]]
        latents, maps = vectors[f"{name}.x"], vectors[f"{name}.maps"]
        height = latents.shape[-1]
        mask = region(widen(_scores(maps, tokens, case["blend"])), 0.3, height)
        # of the stored pair the target's mask is the union; the source's is its own and idle
        assert torch.equal(mask, vectors[f"{name}.mask"][1, 0].bool())
        if "subtract" in case:
            without = region(_scores(maps, tokens, case["subtract"]), 0.3, height)
            assert torch.equal(without, vectors[f"{name}.sub_mask"][1, 0].bool())
            mask &= ~without
        expected = vectors[f"{name}.y_target"][0]
        stride = height // expected.shape[-1]
        target = blend(latents, mask)[1, :, ::stride, ::stride]
        # a choice between two stored tensors: rounding of one sum and difference at most
        torch.testing.assert_close(target, expected, atol=1e-6, rtol=0)
        active = [blend_active(n, about["steps"], 0.2) for n in range(about["steps"])]
        assert sum(not on for on in active) == case["start_blend"]
        assert active.index(True) == case["first_active_call"] - 1  # calls are counted from 1


def _scores(maps: Tensor, tokens: list[Tokens], words: list[list[str]]) -> Tensor:
    """Mean over layers of the attention to some words; maps (layers, 2, pixels, tokens)."""
    rows = [
        maps[:, row][..., [n for word in ws for n in find_words(t, word)]].sum(-1).mean(0)
        for row, (t, ws) in enumerate(zip(tokens, words, strict=True))
    ]
    size = round(maps.shape[2] ** 0.5)
    return torch.stack(rows).unflatten(-1, (size, size))
