"""Names in published files, as the libraries of today call the same tensors."""

import re
from collections.abc import Iterator, Mapping, Sequence

from jaxtyping import Shaped
from torch import Tensor

State = Mapping[str, Shaped[Tensor, "..."]]

_OLD_ATTENTION = re.compile(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_TOWERS = {
    "text_model.": "embeddings.token_embedding.weight",
    "vision_model.": "embeddings.patch_embedding.weight",
}
"""Prefixes of CLIP's towers, and a tensor by which each is known."""
_TWICE = "vision_model.vision_model."
"""In files of Stable Diffusion's safety checker, which has a tower within a tower."""
_TIED = {"encoder.embed_tokens.weight": "shared.weight"}
"""T5's encoder reads the table of words that encoder and decoder share; files hold it once."""


def fitted(state: State, expected: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a file under the names of a network, wherever they differ.

    Known differences: Stable Diffusion's autoencoders were published with older names of attention;
    CLIP's towers are prefixed or not, by the version that wrote or reads them; a tied table is
    stored once; a linear layer may be stored as a convolution of one pixel.

    Args:
        state: as read.
        expected: the network's state dict, or any mapping by its names.

    Returns:
        All that has a place; what has none (position ids, another tower, a decoder) is left out.
    """
    found: dict[str, Tensor] = {}
    alone = [tower for tower, known in _TOWERS.items() if known in expected]
    within = [tower for tower, known in _TOWERS.items() if f"{tower}{known}" in expected]
    for name, tensor in state.items():
        for candidate in _candidates(name, alone, within):
            if candidate in expected and (candidate == name or candidate not in state):
                found[candidate] = _flat(tensor, expected[candidate])
                break
    for name, source in _TIED.items():
        if name in expected and name not in found and source in found:
            found[name] = found[source]
        if source in expected and source not in found and name in found:
            found[source] = found[name]
    return found


def _candidates(name: str, alone: Sequence[str], within: Sequence[str]) -> Iterator[str]:
    """The name, then what it may be called by now.

    Args:
        name: in the file.
        alone: the tower that the network is, whose names have no prefix.
        within: the towers that the network has, whose names have one.
    """
    yield name
    match = _OLD_ATTENTION.fullmatch(name)
    if match:
        yield f"{match[1]}.{_ATTENTION[match[2]]}.{match[3]}"
    if name.startswith(_TWICE):
        yield name.removeprefix("vision_model.")
    for tower in alone:
        if name.startswith(tower):  # another tower's are left where they are
            yield name.removeprefix(tower)
    if len(within) == 1:
        yield f"{within[0]}{name}"


def _flat(tensor: Shaped[Tensor, "..."], expected: object) -> Tensor:
    """A convolution of one pixel as the matrix that it is, where that is asked for."""
    is_matrix = isinstance(expected, Tensor) and expected.dim() == 2
    if is_matrix and tensor.dim() == 4 and tensor.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0]
    return tensor
