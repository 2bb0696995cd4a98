"""Layers of the BSQ autoencoder, named so that state dicts are those of the released files."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_EPS = 1e-6


class Conv(nn.Module):
    """A convolution; the released files have one level of names more than needed."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)

    def forward(
        self, x: Float[Tensor, "batch _ height width"]
    ) -> Float[Tensor, "batch _ height width"]:
        return self.conv(x)


class Norm(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=_EPS)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return self.norm(x)


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))); 1x1 shortcut where the channels change."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = Norm(channels_in, groups)
        self.conv1 = Conv(channels_in, channels_out)
        self.norm2 = Norm(channels_out, groups)
        self.conv2 = Conv(channels_out, channels_out)
        changes = channels_in != channels_out
        self.nin_shortcut = Conv(channels_in, channels_out, 1) if changes else None

    def forward(
        self, x: Float[Tensor, "batch _ height width"]
    ) -> Float[Tensor, "batch _ height width"]:
        branch = self.conv1(F.silu(self.norm1(x)))
        branch = self.conv2(F.silu(self.norm2(branch)))
        return branch + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class Downsample(nn.Module):
    """Half the size; one row and one column of zeros are added below and to the right."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ModuleDict({"conv": nn.Conv2d(channels, channels, 3, stride=2)})

    def forward(
        self, x: Float[Tensor, "batch channels _ _"]
    ) -> Float[Tensor, "batch channels _ _"]:
        return self.conv["conv"](F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size by repeating cells, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, channels)

    def forward(
        self, x: Float[Tensor, "batch channels _ _"]
    ) -> Float[Tensor, "batch channels _ _"]:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, groups)
        self.block_2 = ResidualBlock(channels, channels, groups)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return self.block_2(self.block_1(x))


class Level(nn.Module):
    """Residual blocks of one resolution, and what leads from there to the next.

    Args:
        channels_in: of the first block.
        channels_out: of the level.
        blocks: how many.
        groups: of the normalisation.
        downsample: halve the size at the end.
        upsample: double the size at the end.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        blocks: int,
        groups: int,
        *,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        inputs = [channels_in, *[channels_out] * (blocks - 1)]
        self.block = nn.ModuleList(ResidualBlock(i, channels_out, groups) for i in inputs)
        self.downsample = Downsample(channels_out) if downsample else None
        self.upsample = Upsample(channels_out) if upsample else None

    def forward(self, x: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        for block in self.block:
            x = block(x)
        for change in (self.downsample, self.upsample):
            if change is not None:
                x = change(x)
        return x
