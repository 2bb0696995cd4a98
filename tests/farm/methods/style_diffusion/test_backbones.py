"""The whole method on networks of other shapes: sizes, widths, layers, what they predict."""

from dataclasses import dataclass

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModel

from farm.backbones.clip import ImageEncoder
from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.backbones.stable_diffusion import NoisePredictor
from farm.calls import Meter
from farm.diffusion import DiffusionClient
from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.config import EditingConfig, InversionConfig
from farm.methods.style_diffusion.editing import edit_cells
from farm.methods.style_diffusion.inversion import invert
from farm.methods.style_diffusion.plan import plan_prompts
from farm.methods.style_diffusion.work import planned_edit, planned_inversion
from farm.model_spec import ModelSpec
from tests.farm.methods.style_diffusion.runs import SOURCE, TARGET
from tests.stages import finish
from tests.tiny import TOKENS, WIDTH, tiny_autoencoder, tiny_text_encoder, tiny_tokenizer

DEEP = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 2 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 2,
    "block_out_channels": (8, 8, 8),
}
FLAT = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "block_out_channels": (8, 16),
}


@dataclass(frozen=True)
class Shape:
    """A kind of Stable Diffusion in small: its latents, its layers, what it predicts."""

    latent: int
    prediction: str
    options: dict
    patch: int = 8


SHAPES = {
    "version 1": Shape(8, "epsilon", {**DEEP, "attention_head_dim": 2}),
    "version 2": Shape(
        12,
        "v_prediction",
        {**DEEP, "attention_head_dim": (1, 2, 2), "use_linear_projection": True},
        patch=4,
    ),
    "an odd size": Shape(10, "epsilon", {**FLAT, "attention_head_dim": 2}),
    "large, two layers a block": Shape(
        16, "v_prediction", {**FLAT, "attention_head_dim": 2, "layers_per_block": 2}
    ),
}


def built(shape):
    """Networks and their spec; maps half as wide as the latents, and self-attention up to there."""
    generator = torch.Generator().manual_seed(0)
    options = {"layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": WIDTH}
    unet = UNet2DConditionModel(sample_size=shape.latent, **(options | shape.options))
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=shape.patch,
    )
    tower = CLIPVisionModel(vision)
    with torch.no_grad():
        for module in (unet, tower):
            for parameter in module.parameters():
                drawn = torch.randn(parameter.shape, generator=generator)
                fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
                parameter.copy_(drawn / fan_in**0.5)
    spec = ModelSpec(
        name="shape",
        image_size=2 * shape.latent,
        latent_channels=4,
        latent_size=shape.latent,
        tokens=TOKENS,
        text_width=WIDTH,
        image_tokens=(16 // shape.patch) ** 2 + 1,
        map_size=shape.latent // 2,
        self_replace_size=shape.latent // 2,
        prediction_type=shape.prediction,
    )
    return Networks(
        unet=NoisePredictor(unet, spec),
        vae=tiny_autoencoder(),
        text=tiny_text_encoder(),
        image=ImageEncoder(tower),
        spec=spec,
        device="cpu",
    )


@pytest.mark.parametrize("name", SHAPES)
def test_inversion_and_edit(name):
    networks = built(SHAPES[name])
    spec = networks.spec
    meter = Meter(OperationHost(networks))
    client = DiffusionClient(meter, spec)
    tokenizer = tiny_tokenizer()
    config = InversionConfig(
        num_steps=3, inner_steps=2, guidance_scale=3.0, stop_base=0.0, stop_slope=0.0
    )
    image = torch.rand(
        3, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(1)
    )
    texts = tokenizer.encode(SOURCE), tokenizer.encode("")
    _, inversion = finish(invert(image, *texts, client, config, seed=0))
    assert meter.work == planned_inversion(config)
    meter.work.clear()
    editing = EditingConfig(tau_u=0.5, blend_threshold=0.5, blend_start=0.4)
    plan = plan_prompts(tokenizer, SOURCE, TARGET, editing, config.num_steps)
    cells = [EditCell(plan, editing)]
    _, (output,) = finish(edit_cells(inversion, cells, client))
    assert meter.work == planned_edit(cells, config.num_steps)
    assert output.image.shape == (3, spec.image_size, spec.image_size)
    assert output.image.isfinite().all()
    assert output.figures["latent_change"] > 1e-3  # rounding would be 1e-6
    maps = inversion.state.token_maps
    assert maps.shape == (3, spec.map_size**2, TOKENS)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:2]))
