"""What layers inside a frozen network put out during one call."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def captured(layers: Sequence[nn.Module]) -> Generator[list[Tensor], None, None]:
    """Inside the block, the outputs of these layers are collected as they are computed.

    The hooks are gone afterwards, also after an exception. One thread per network at a time.
    """
    outputs: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:
        del layer, inputs
        outputs.append(output)

    handles: list[RemovableHandle] = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
