"""The frozen networks of Learnable Regions: DINO, a CLIP that judges, an inpainting UNet."""

from dataclasses import dataclass

from torch import nn

from farm.backbones.dino import Dino
from farm.backbones.inpainting import Inpainter
from farm.backbones.scorer import Scorer


@dataclass(frozen=True)
class RegionNetworks:
    """What the operations of `farm.backbones.region_operations` compute with, besides the VAE."""

    dino: Dino
    scorer: Scorer
    inpainter: Inpainter

    def modules(self) -> dict[str, nn.Module]:
        """Each network by name."""
        return {"dino": self.dino, "scorer": self.scorer, "inpainting": self.inpainter}
