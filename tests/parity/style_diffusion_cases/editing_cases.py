"""Whole edits on the set's networks: latents, masks, scores, average maps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from farm.adapters.attention_layers import attention_layers
from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.diffusion import DiffusionClient, EditNoise, EditQuery
from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.conditions import learned_values
from farm.methods.style_diffusion.editing import EditStep, edit_steps
from farm.methods.style_diffusion.plan import plan_edit
from farm.methods.style_diffusion.sampling import reconstruct
from farm.methods.style_diffusion.words import find_words
from farm.samplers.ddim import NoiseSchedule
from tests.parity.golden_set import FullSet, GoldenSet, relative
from tests.parity.style_diffusion_cases.control_cases import editing_config

EDIT = 1e-4
"""Of the largest latent (README of the set)."""


class MapsToo(DiffusionClient):
    """A client that also sums the maps of the target's first tokens, as the program stores them."""

    def __init__(self, networks: Networks, count: int) -> None:
        super().__init__(OperationHost(networks), networks.spec)
        self._count = count
        self.total = torch.zeros(())

    def edit_noises(self, queries: Sequence[EditQuery]) -> list[EditNoise]:
        (query,) = queries
        asked = query.score_tokens
        assert asked is not None
        every = torch.eye(asked.shape[-1])[: self._count]
        both = replace(query, score_tokens=torch.cat([asked, every]))
        (answer,) = super().edit_noises([both])
        assert answer.scores is not None
        self.total = self.total + answer.scores[len(asked) :]
        return [replace(answer, scores=answer.scores[: len(asked)])]


def check_edits(stored: GoldenSet) -> None:
    """Every stored edit: latents of the kept steps, masks, scores and average maps of both rows."""
    for case in stored.consumed.open("edits.json").values():
        name = case["name"]
        if case["target"] is None:
            _check_reconstruction(stored, name, case)
            continue
        config = editing_config(case, tau_v=case["tau_v"])
        assert case["steps"] == stored.config.num_steps
        source, target = (stored.tokens[prompt] for prompt in case["prompts"])
        cell = EditCell(plan_edit(source, target, config, case["steps"]), config)
        average = stored.edits[f"{name}.avg_cross16"]
        client = MapsToo(stored.networks, average.shape[-1])
        embeds = {target.ids: stored.ddim[f"ctx_{case['target']}"][0]}
        steps = [step for (step,) in edit_steps(stored.trained, [cell], embeds, client)]
        expected = stored.edits[f"{name}.latents"]
        kept = steps if len(expected) == len(steps) else steps[-len(expected) :]
        for actual, latents in zip(kept, expected, strict=True):
            assert relative(actual.latents, latents) < EDIT, name
        found = torch.stack([_source_average(stored, average), client.total / len(steps)])
        assert relative(found, average.movedim(-1, 1)) < EDIT, name
        if case["blend"] is not None:
            _check_masks(steps, stored.edits[f"{name}.blend_mask"])
            scores = torch.stack([step.scores for step in steps if step.mask is not None])
            assert relative(scores, stored.edits[f"{name}.blend_score"][:, :, 0]) < EDIT, name


def _source_average(stored: GoldenSet, average: Tensor) -> Tensor:
    """(tokens, size, size) of the source's first tokens."""
    maps = stored.trained.state.token_maps[..., : average.shape[-1]].mean(dim=0)
    return maps.T.unflatten(1, average.shape[1:3])


def _check_reconstruction(stored: GoldenSet, name: str, case: dict[str, Any]) -> None:
    """The program's StoreAttn mode: one row, learned values in every step."""
    assert case["tau_v"] == 1
    expected = stored.edits[f"{name}.latents"][-1, 0]
    state = stored.trained.state
    assert relative(state.latents, expected) < EDIT
    values = learned_values(stored.trained, state.source_embeds)
    assert relative(reconstruct(stored.trained, stored.client, values), expected) < EDIT
    average = stored.edits[f"{name}.avg_cross16"]
    assert relative(_source_average(stored, average), average[0].movedim(-1, 0)) < EDIT


def check_block_layout(full: FullSet, stored: GoldenSet) -> None:
    """An edit with Stable Diffusion's blocks: 64x64 self-attention neither stored nor replaced."""
    meta = {name: full.meta[name] for name in full.meta}
    vectors, spec = full.vectors, full.spec
    assert NoiseSchedule.from_spec(spec).timesteps(meta["T"]) == meta["timesteps"]
    source, target = (stored.tokens[prompt] for prompt in meta["prompts"])
    for tokens, side in ((source, "source"), (target, "target")):
        for word, positions in meta[f"{side}_word_tokens"].items():
            assert find_words(tokens, word) == positions
    counts: dict[str, int] = {}
    for layer in attention_layers(full.networks.unet.unet, spec.latent_size):
        kind = f"{layer.place}_{'cross' if layer.is_cross else 'self'}"
        counts[kind] = counts.get(kind, 0) + (layer.size <= spec.self_replace_size)
    assert counts == meta["stored_map_counts"]
    config = editing_config(meta, tau_v=meta["tau_v"])
    cell = EditCell(plan_edit(source, target, config, meta["T"]), config)
    embeds = {target.ids: vectors["ctx_target"][0]}
    steps = [step for (step,) in edit_steps(full.inversion, [cell], embeds, full.client)]
    for actual, expected in zip(steps, vectors["latents"], strict=True):
        assert relative(actual.latents, expected) < EDIT
    _check_masks(steps, vectors["blend_mask"])


def _check_masks(steps: list[EditStep], expected: Tensor) -> None:
    """Steps that blend, and where; a handful of pixels may sit on the threshold (README)."""
    masks = [step.mask for step in steps if step.mask is not None]
    assert len(masks) == len(expected)
    for actual, stored in zip(masks, expected, strict=True):
        # of the stored pair the target's mask is the union; the source's is its own and idle
        assert (actual != stored[1, 0].bool()).sum() <= 5
