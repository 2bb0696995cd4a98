"""Passes whose attention is kept: target maps of training, queries and keys of edits' sources."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.adapters.attention import AttentionControl, KeepStates
from farm.backbones.map_cache import Maps, States, maps_digest
from farm.backbones.networks import Networks

Latents = Float[Tensor, "batch channels height width"]
Embeds = Float[Tensor, "batch tokens embed"]


@dataclass(frozen=True)
class PassInputs:
    """What a pass sees, row by row.

    Attributes:
        latents: at `timestep`.
        timestep: of each row.
        embeds: of the prompt.
        value_embeds: input of the values, if it is another.
        alone: whether every row is computed in a batch of its own. Such rows are named apart, so
            that what they find was never rounded in company.
    """

    latents: Latents
    timestep: Int[Tensor, " batch"]
    embeds: Embeds
    value_embeds: Embeds | None = None
    alone: bool = False

    def rows(self, chosen: Sequence[int]) -> "PassInputs":
        """Some of the rows."""
        index = list(chosen)
        values = None if self.value_embeds is None else self.value_embeds[index]
        return PassInputs(
            self.latents[index], self.timestep[index], self.embeds[index], values, self.alone
        )

    def digests(self, kind: str) -> list[bytes]:
        """Names of what each row's attention gives."""
        label = f"{kind} alone" if self.alone else kind
        values = (
            [None] * len(self.latents) if self.value_embeds is None else self.value_embeds.cpu()
        )
        rows = zip(
            self.latents.cpu(), self.timestep.tolist(), self.embeds.cpu(), values, strict=True
        )
        return [maps_digest(*row, label=label) for row in rows]


def record_maps(networks: Networks, inputs: PassInputs) -> tuple[Latents, list[Maps]]:
    """Noise, and the maps of each row, which the cache then has."""
    control = AttentionControl(record_pixels=networks.spec.map_size**2)
    predicted = networks.unet(inputs.latents, inputs.timestep, inputs.embeds, control)
    kept: list[Maps] = []
    for row, digest in enumerate(inputs.digests("maps")):
        # copies: a view would keep the maps of the whole batch alive
        kept.append(tuple(layer[row].clone() for layer in control.maps))
        networks.maps.put(digest, kept[-1])
    return predicted, kept


def recorded_maps(networks: Networks, inputs: PassInputs) -> tuple[Maps, list[int]]:
    """Stacked maps of all rows, and the forwards that each took: none where the cache had them."""
    found = [networks.maps.get(digest) for digest in inputs.digests("maps")]
    lacking = [row for row, maps in enumerate(found) if maps is None]
    if lacking:
        with torch.no_grad():
            _, again = record_maps(networks, inputs.rows(lacking))
        for row, maps in zip(lacking, again, strict=True):
            found[row] = maps
    layers = zip(*(maps for maps in found if maps is not None), strict=True)
    cost = [int(row in lacking) for row in range(len(found))]
    return tuple(torch.stack(layer) for layer in layers), cost


def record_source(
    networks: Networks, inputs: PassInputs, *, prompted: bool
) -> tuple[Latents, list[States], list[Tensor]]:
    """Noise, the queries and keys of each row, which the cache then has, and prompted cross maps.

    Rows without the prompt keep self-attention alone: nothing else of theirs is ever taken. Maps
    are made whether anybody wants them or not: computed otherwise, later layers would be rounded
    otherwise, and what is computed again could differ from what was kept.
    """
    control = AttentionControl(
        value_embeds=inputs.value_embeds,
        record_pixels=networks.spec.map_size**2 if prompted else None,
        keep=KeepStates(networks.spec.self_replace_size**2, cross=prompted),
    )
    predicted = networks.unet(inputs.latents, inputs.timestep, inputs.embeds, control)
    kept: list[States] = []
    for row, digest in enumerate(inputs.digests(_kind(prompted=prompted))):
        kept.append({n: (q[row].clone(), k[row].clone()) for n, (q, k) in control.states.items()})
        networks.sources.put(digest, kept[-1])
    return predicted, kept, control.maps


def source_states(
    networks: Networks, inputs: PassInputs, wanted: Sequence[bool], *, prompted: bool
) -> tuple[list[States | None], list[int]]:
    """Queries and keys of the wanted rows, and the forwards that each took.

    Rows that are one source, as the targets of one picture are, are computed once.
    """
    digests = inputs.digests(_kind(prompted=prompted))
    found: dict[bytes, States] = {}
    first: dict[bytes, int] = {}
    for row, digest in enumerate(digests):
        if wanted[row] and digest not in found and digest not in first:
            states = networks.sources.get(digest)
            if states is None:
                first[digest] = row
            else:
                found[digest] = states
    if first:
        with torch.no_grad():
            _, again, _ = record_source(
                networks, inputs.rows(list(first.values())), prompted=prompted
            )
        found |= dict(zip(first, again, strict=True))
    computed = set(first.values())
    return (
        [found[digest] if wanted[row] else None for row, digest in enumerate(digests)],
        [int(row in computed) for row in range(len(digests))],
    )


def token_maps(layers: Sequence[Tensor]) -> Float[Tensor, "batch pixels tokens"]:
    """Mean over layers and heads of recorded maps."""
    return torch.stack([layer.mean(dim=1) for layer in layers]).mean(dim=0)


def _kind(*, prompted: bool) -> str:
    return "source, prompt" if prompted else "source, no prompt"
