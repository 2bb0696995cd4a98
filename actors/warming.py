"""What a backbone computes once before it is ready.

A network's first call compiles and allocates, and no edit shall wait for that.
"""

from collections.abc import Sequence
from contextlib import suppress

import torch

from farm.calls import Answer, Call
from farm.diffusion import DiffusionClient, NoiseQuery
from farm.model_spec import ModelSpec

_GREY = 0.5


class _NotedError(Exception):
    """A call was noted, and has no answer."""


class _Notebook:
    """Notes calls instead of answering them; a `farm.calls.Executor`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        self.calls += calls
        raise _NotedError


def warm_up_calls(spec: ModelSpec) -> tuple[Call, ...]:
    """A call of each network that every set has, and of the UNet where there is one."""
    notebook = _Notebook()
    client = DiffusionClient(notebook, spec)
    image = torch.full((3, spec.image_size, spec.image_size), _GREY)
    latents = torch.zeros(spec.latent_shape)
    embeds = torch.zeros(spec.tokens, spec.text_width)
    with suppress(_NotedError):
        client.embed_prompt([0] * spec.tokens)
    with suppress(_NotedError):
        client.encode(image)
    with suppress(_NotedError):
        client.decode(latents)
    if spec.text_to_image:
        with suppress(_NotedError):
            client.noise(NoiseQuery(latents, 1, embeds))
    return tuple(notebook.calls)
