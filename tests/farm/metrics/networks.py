"""Small random networks of the real classes, with weights drawn from a seed."""

from typing import TypeVar

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

M = TypeVar("M", bound=nn.Module)


def seeded(module: M, seed: int = 0) -> M:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 25
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return module.eval()


def tiny_vit(seed: int = 0) -> VisionTransformer:
    """Pictures of 16 pixels in patches of 4, two blocks, two heads."""
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        pretrained=False,
        img_size=16,
        patch_size=4,
        embed_dim=8,
        depth=2,
        num_heads=2,
        num_classes=0,
    )
    assert isinstance(vit, VisionTransformer)
    return seeded(vit, seed)


def squeeze_state(seed: int = 0) -> dict[str, Tensor]:
    return dict(seeded(squeezenet1_1(weights=None), seed).state_dict())


def picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)
