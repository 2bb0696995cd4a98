"""What one training taught a network, added to another that began as the same one.

Task arithmetic (Ilharco et al., "Editing models with task arithmetic", arXiv:2212.04089, §2): the
change of the weights by a training is a vector, and a share of it added to a relative carries
something of what was learned over. So the inpainting UNet has something of the text-to-image
UNet's later training without a step of its own.
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from farm.errors import ModelSetError


def with_change(
    weights: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    share: float,
) -> dict[str, Tensor]:
    """The network's weights + share (after - before), in fp32, rounded to their own type.

    A tensor with more input channels (dimension 1) than the change's has it in its first ones:
    those that an inpainting UNet has in common with the text-to-image UNet.

    Args:
        weights: of the network that is to have the change.
        before: of the relative, before its training; with the same names.
        after: of the relative, after it.
        share: of the change; 0 leaves the weights as they are.

    Raises:
        ModelSetError: the networks are no relatives: other names, or shapes that do not fit.
    """
    if not math.isfinite(share):
        raise ModelSetError(f"a share of {share} of a change: give a finite number, such as 0.3")
    for name, others in (("before", before), ("after", after)):
        if others.keys() != weights.keys():
            odd = sorted(others.keys() ^ weights.keys())
            raise ModelSetError(
                f"{len(odd)} tensors are not in both the network and {name!r} ({odd[0]}, …): "
                "give networks of one architecture"
            )
    return {
        name: _changed(name, tensor, before[name], after[name], share)
        for name, tensor in weights.items()
    }


def _changed(name: str, tensor: Tensor, before: Tensor, after: Tensor, share: float) -> Tensor:
    wide = tensor.ndim > 1 and before.ndim == tensor.ndim and before.shape[1] < tensor.shape[1]
    fitting = tensor[:, : before.shape[1]] if wide else tensor
    if not before.shape == after.shape == fitting.shape:
        raise ModelSetError(
            f"{name} is {list(tensor.shape)} in the network, {list(before.shape)} before and "
            f"{list(after.shape)} after: give networks of one architecture"
        )
    changed = tensor.float().clone()
    part = changed[:, : before.shape[1]] if wide else changed
    part += share * (after.float() - before.float())
    if not torch.isfinite(changed.to(tensor.dtype)).all():
        raise ModelSetError(f"{name} leaves the range of {tensor.dtype} with {share} of the change")
    return changed.to(tensor.dtype)


def write_with_change(folder: Path, before: Path, after: Path, share: float, output: Path) -> None:
    """A copy of a network's folder that has a share of another's change; `with_change` on files.

    Args:
        folder: of the network that is to have it: one safetensors file, and what goes with it.
        before: folder of the relative before its training.
        after: folder of the relative after it.
        share: of the change.
        output: where the copy goes; it must not be there yet.

    Raises:
        ModelSetError: as for `with_change`; a folder has no single weights file; `output` exists.
    """
    file = _weights_file(folder)
    old, new = (load_file(_weights_file(other)) for other in (before, after))
    if output.exists():
        raise ModelSetError(f"{output} is there: give a folder that is not, or remove it")
    changed = with_change(load_file(file), old, new, share)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    shutil.copytree(folder, output)
    save_file(changed, output / file.name, metadata)


def _weights_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise ModelSetError(
            f"{folder} has {len(found)} safetensors files: give the folder of one network, such as "
            "out/zoo/export/unet"
        )
    return found[0]
