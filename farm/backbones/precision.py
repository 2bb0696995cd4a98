"""In which precision and memory layout networks are computed, by the device.

On a CPU everything is single precision, which the golden vectors are. On an accelerator the UNets,
nearly all of the work, are computed in bfloat16; what decides by small differences stays in single
precision: autoencoders, CLIP and DINO, noise levels, guidance, losses, and attention maps that are
compared or edited. EDITFARM_PRECISION=fp32 asks for single precision everywhere,
EDITFARM_CAPTURE=0 for steps that are launched kernel by kernel, EDITFARM_COMPILE=1 for ones that
torch compiles first.
"""

import os
import shutil
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from farm.errors import InvalidRequestError

PRECISION_VARIABLE = "EDITFARM_PRECISION"
CAPTURE_VARIABLE = "EDITFARM_CAPTURE"
COMPILE_VARIABLE = "EDITFARM_COMPILE"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_AUTO = "auto"
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Precision:
    """How networks are computed.

    Attributes:
        unet: of both UNets' weights and activations.
        channels_last: whether convolutions have channels last, which tensor cores want.
    """

    unet: torch.dtype = torch.float32
    channels_last: bool = False


def precision_for(device: str, asked: str | None = None) -> Precision:
    """What suits a device.

    Args:
        device: where to compute.
        asked: "auto", "fp32", "bf16" or "fp16"; None: what the environment asks.

    Raises:
        InvalidRequestError: it asks for something else.
    """
    asked = asked or os.environ.get(PRECISION_VARIABLE) or _AUTO
    if asked != _AUTO and asked not in _DTYPES:
        raise InvalidRequestError(
            f"{PRECISION_VARIABLE} is {asked!r}, expected {_AUTO}, {', '.join(_DTYPES)}"
        )
    is_gpu = torch.device(device).type == "cuda"
    if asked == _AUTO:
        asked = "bf16" if is_gpu else "fp32"
    return Precision(_DTYPES[asked], channels_last=is_gpu)


def keep_single(device: str) -> None:
    """Have a device compute single precision as it is: torch takes TF32 for convolutions by itself.

    TF32 has 10 bits of the 23. Networks in half precision compute as before. It holds for the whole
    process, on whatever CUDA device. These are the older names of the two switches: inductor reads
    them, and torch refuses to tell them once the newer ones were set.
    """
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def captures() -> bool:
    """Whether steps are captured as graphs, where the device can."""
    return os.environ.get(CAPTURE_VARIABLE, "1") != "0"


def compiles() -> bool:
    """Whether steps are compiled before they are captured.

    Raises:
        InvalidRequestError: they should be, and there is no compiler.
    """
    asked = os.environ.get(COMPILE_VARIABLE, "0") == "1"
    compiler = os.environ.get("CXX") or os.environ.get("CC")
    if asked and not any(map(shutil.which, filter(None, (compiler, "g++", "gcc", "clang")))):
        raise InvalidRequestError(
            f"{COMPILE_VARIABLE} is 1, and there is no C compiler, which torch needs for that: "
            "install gcc and libc6-dev (the images have none), or leave it out"
        )
    return asked


def laid_out(network: M, precision: Precision) -> M:
    """The network in the layout that the precision asks for."""
    if precision.channels_last:
        # the stubs know of one overload less than there is
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network
