"""The golden set's edits as `EditQuery` data, built from stored facts and not by the method."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from farm.diffusion import DiffusionClient, EditNoise, EditQuery
from farm.samplers.ddim import NoiseSchedule, ddim_step
from farm.samplers.guidance import guide


@dataclass(frozen=True)
class Alignment:
    """What the set's `alignment.json` says of a prompt pair."""

    source_words: Mapping[str, list[int]]
    target_words: Mapping[str, list[int]]
    replace: Tensor
    refine: Tensor
    refine_alpha: Tensor


def alignment_of(golden: Path, prompts: list[str]) -> Alignment:
    entries = json.loads((golden / "alignment.json").read_text())
    (entry,) = (e for e in entries if [e["source"], e["target"]] == prompts)
    tokens = len(entry["refine_index"])
    replace, refine = torch.zeros(tokens, tokens), torch.zeros(tokens, tokens)
    for row in entry.get("replace_identity_rows", []):
        replace[row, row] = 1
    for row, column, weight in entry.get("replace_nonzero", []):
        replace[row, column] = weight
    for column, row in enumerate(entry["refine_index"]):
        refine[row, column] = 1  # row -1 stands for "none"; its alpha is 0
    return Alignment(
        entry["source_word_tokens"],
        entry["target_word_tokens"],
        replace,
        refine,
        torch.tensor(entry["refine_alpha"], dtype=torch.float32),
    )


def mapper_of(kind: str, alignment: Alignment) -> tuple[Tensor, Tensor]:
    """Mapper and refine_alpha of a golden edit's `type`."""
    if kind == "Refinement":
        return alignment.refine, alignment.refine_alpha
    return alignment.replace, torch.ones(len(alignment.replace))


def equalizer_of(pairs: list[Any] | None, alignment: Alignment) -> Tensor:
    equalizer = torch.ones(len(alignment.replace))
    for word, value in zip(*(pairs or [[], []]), strict=True):
        equalizer[alignment.target_words[word]] = value
    return equalizer


def watched_tokens(
    blend: list[list[str]] | None, alignment: Alignment
) -> tuple[list[int], list[int]]:
    """Tokens of the blend words of each prompt; without any, of the first word."""
    if blend is None:
        return [1], [1]
    sides = zip(blend, (alignment.source_words, alignment.target_words), strict=True)
    source, target = ([n for word in words for n in known[word]] for words, known in sides)
    return source, target


def modulation(weights: Mapping[str, Tensor], index: int, features: Tensor) -> tuple[Tensor, ...]:
    """Scale and shift of timestep `index` from its mapping network (spec §4), one image."""
    named = {n.removeprefix(f"m{index}."): t.float() for n, t in weights.items()}

    def convolve(name: str, states: Tensor) -> Tensor:
        return F.conv1d(states, named[f"{name}.weight"], named[f"{name}.bias"])

    states = convolve("conv_block.0.0", convolve("conv_start", features))
    gamma, beta = named["conv_block.0.1.weight"], named["conv_block.0.1.bias"]
    states = F.batch_norm(states, None, None, gamma, beta, training=True)
    scale, shift = convolve("conv_end", F.leaky_relu(states, 0.01))[0].chunk(2)
    return scale, shift


@dataclass(frozen=True)
class GoldenEdit:
    """One entry of `edits.json` with everything its steps need."""

    entry: Mapping[str, Any]
    alignment: Alignment
    contexts: Tensor
    """(2, tokens, width): source, target."""
    uncond: Tensor
    modulations: list[tuple[Tensor, ...]]
    watched: tuple[list[int], list[int]]
    """The tokens of each row whose attention is scored."""

    @property
    def steps(self) -> int:
        return len(self.modulations)

    def query(self, step: int, latents: Tensor, timestep: int) -> EditQuery:
        entry = self.entry
        tokens = self.contexts.shape[1]
        scale, shift = self.modulations[step]
        learned = self.contexts * scale + shift
        target_learned = step < self.steps * entry["tau_v"]
        mapper, refine_alpha = mapper_of(entry["type"], self.alignment)
        blend = torch.zeros(2, tokens)
        for row, watched in zip(blend, self.watched, strict=True):
            row[watched] = 1
        return EditQuery(
            latents=latents,
            timestep=timestep,
            embeds=self.contexts,
            uncond_embeds=self.uncond,
            value_embeds=learned if target_learned else torch.stack([learned[0], self.contexts[1]]),
            mapper=mapper,
            refine_alpha=refine_alpha,
            equalizer=equalizer_of(entry["eq"], self.alignment),
            cross_alpha=torch.full((tokens,), float(step < int((self.steps + 1) * entry["tau_c"]))),
            self_active=step < int(self.steps * entry["tau_s"]),
            uncond_self_active=step < int(self.steps * entry["tau_u"]),
            blend_tokens=blend,
        )


def edit_step(
    client: DiffusionClient, edit: GoldenEdit, step: int, latents: Tensor, guidance: float
) -> tuple[Tensor, EditNoise]:
    """Both rows after one guided step, before any blending."""
    move = NoiseSchedule.from_spec(client.spec).denoising(edit.steps)[step]
    noise = client.edit_noise(edit.query(step, latents, move.timestep))
    guided = guide(noise.uncond, noise.cond, guidance)
    return ddim_step(latents, guided, move.alpha, move.alpha_to), noise


def blended(latents: Tensor, mask: Tensor) -> Tensor:
    return latents[:1] + mask.float() * (latents - latents[:1])
