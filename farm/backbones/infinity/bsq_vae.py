"""The BSQ autoencoder: a plain convolutional network without attention (spec §3.1)."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from farm.backbones.infinity.bsq_layers import Conv, Level, Middle, Norm

RELEASED_GROUPS = 32


@dataclass(frozen=True)
class BsqVaeConfig:
    """Sizes of the autoencoder.

    Attributes:
        bits: channels of the latent.
        base: channels at full resolution.
        multipliers: channels of each level as multiples of `base`; each level but the last halves.
        encoder_blocks: residual blocks of a level of the encoder.
        decoder_blocks: residual blocks of a level of the decoder.
        groups: of the normalisation; the released models have 32.
    """

    bits: int
    base: int
    multipliers: tuple[int, ...]
    encoder_blocks: int
    decoder_blocks: int
    groups: int = RELEASED_GROUPS

    @property
    def stride(self) -> int:
        """Pixels per latent cell and side."""
        return 2 ** (len(self.multipliers) - 1)


class Encoder(nn.Module):
    """Pictures in [-1, 1] to features."""

    def __init__(self, config: BsqVaeConfig) -> None:
        super().__init__()
        widths = [config.base * m for m in config.multipliers]
        last = len(widths) - 1
        inputs = [config.base, *widths[:-1]]
        self.conv_in = Conv(3, config.base)
        self.down = nn.ModuleList(
            Level(i, o, config.encoder_blocks, config.groups, downsample=level < last)
            for level, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.mid = Middle(widths[-1], config.groups)
        self.norm_out = Norm(widths[-1], config.groups)
        self.conv_out = Conv(widths[-1], config.bits)

    def forward(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch bits latent_height latent_width"]:
        x = self.conv_in(image)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Codes to pictures, nominally in [-1, 1]; level 0 is full resolution and comes last."""

    def __init__(self, config: BsqVaeConfig) -> None:
        super().__init__()
        widths = [config.base * m for m in config.multipliers]
        inputs = [*widths[1:], widths[-1]]
        self.conv_in = Conv(config.bits, widths[-1])
        self.mid = Middle(widths[-1], config.groups)
        self.up = nn.ModuleList(
            Level(i, o, config.decoder_blocks, config.groups, upsample=level > 0)
            for level, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.norm_out = Norm(widths[0], config.groups)
        self.conv_out = Conv(widths[0], 3)

    def forward(
        self, codes: Float[Tensor, "batch bits latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        x = self.mid(self.conv_in(codes))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class BsqVae(nn.Module):
    """Pictures in [0, 1] to features and codes back to pictures.

    Owns its range, so no caller ever scales a picture. Features become bits in `quantiser`.
    """

    def __init__(self, config: BsqVaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch bits latent_height latent_width"]:
        # Contiguous: on a CPU, normalising channels-last memory loses precision enough to flip
        # bits that are near zero.
        return self.encoder((image * 2 - 1).contiguous())

    def decode(
        self, codes: Float[Tensor, "batch bits latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        return (self.decoder(codes.contiguous()).clamp(-1, 1) + 1) / 2
