"""Holes as Stable Diffusion makes them, and an inpainting UNet that begins as its start."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor

from farm.masks import boxes_to_masks
from farm.zoo.recipes.diffusion import LatentBatch, LatentDiffusion, load_autoencoder
from farm.zoo.recipes.holes import draw_holes, hole_condition, hole_pool, latent_mask, with_hole
from farm.zoo.recipes.inpainting import InpaintingRecipe, widened
from farm.zoo.scenes.boxes import bounding_boxes
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.weights import SCENES_FOLDER


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_bounding_boxes_hold_all_of_the_object_and_touch_it_on_every_side():
    masks = torch.zeros(2, 64, 64)
    masks[0, 10:21, 5:40] = 0.2
    masks[1, 0:64, 63] = 1
    assert bounding_boxes(masks).tolist() == [[5, 10, 40, 21], [63, 0, 64, 64]]


def test_holes_lie_in_the_picture_and_most_erase_an_object_whole():
    scenes = sample_scenes(2000, generator_for("train", 3), split="train", two_share=0.4)
    masks = render(scenes).masks
    boxes = draw_holes(masks, scenes.count, rng())
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 3
    holes = boxes_to_masks(boxes.float(), 64, 64)
    gone = ((masks * (1 - holes)).amax((2, 3)) == 0) & (masks.amax((2, 3)) > 0)
    erased = gone.any(1).float().mean().item()
    assert 0.6 < erased < 0.85  # .65 by their kinds, and some others by chance
    whole = (holes.mean((1, 2, 3)) == 1).float().mean().item()
    assert whole == pytest.approx(0.1, abs=0.03)  # three standard deviations are .02
    untouched = ((masks * holes).amax((1, 2, 3)) == 0).float().mean().item()
    assert untouched > 0.01  # background alone: nothing is to be drawn there


def test_the_hole_reaches_the_unet_as_in_diffusers():
    mask = boxes_to_masks(torch.tensor([[5.0, 9.0, 30.0, 33.0]]), 64, 64)
    nearest = F.interpolate(mask, size=(16, 16))  # StableDiffusionInpaintPipeline's
    assert torch.equal(latent_mask(mask), nearest)
    image = torch.rand(1, 3, 64, 64, generator=rng())
    processor = VaeImageProcessor(vae_scale_factor=4)
    masked = processor.preprocess(image) * (mask < 0.5)
    torch.testing.assert_close(with_hole(image, mask) * 2 - 1, masked, atol=1e-6, rtol=0)


def test_a_widened_unet_ignores_its_new_channels():
    start = UNet2DConditionModel.from_pretrained(SCENES_FOLDER / "unet").float().eval()
    recipe = InpaintingRecipe(start_from=SCENES_FOLDER / "unet", networks=SCENES_FOLDER)
    wide = recipe.build().eval()
    latents, condition = torch.randn(2, 4, 16, 16, generator=rng()), torch.rand(2, 5, 16, 16)
    embeds = torch.randn(2, 32, 96, generator=rng(1))
    with torch.no_grad():
        expected = start(latents, 400, embeds).sample
        found = wide(torch.cat([latents, condition], 1), 400, embeds).sample
    # zeros are added in another order
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(widened(wide.state_dict(), 9)["conv_in.weight"], wide.conv_in.weight)


def test_the_pool_holds_what_the_autoencoder_makes_of_pictures_with_holes(tmp_path):
    pool = hole_pool(SCENES_FOLDER / "vae", 6, 0, 2, tmp_path, two_share=0.5)
    rows, which = torch.tensor([4, 1]), torch.tensor([1, 0])
    masks = boxes_to_masks(pool.holes[rows, which].float(), 64, 64)
    images = render(pool.scenes[rows]).images
    expected = hole_condition(load_autoencoder(SCENES_FOLDER), images, masks)
    found = pool.condition(rows, which)
    assert torch.equal(found[:, :1], expected[:, :1])
    # encoded in bf16 and kept in fp16: latents have a deviation of 1
    torch.testing.assert_close(found[:, 1:], expected[:, 1:], atol=0.15, rtol=0)
    again = hole_pool(SCENES_FOLDER / "vae", 6, 0, 2, tmp_path, two_share=0.5)
    assert torch.equal(again.left, pool.left)


def test_a_perfect_unet_has_no_loss_and_words_without_a_mask_cost_nothing():
    diffusion = LatentDiffusion(SCENES_FOLDER)
    latents = torch.randn(3, 4, 16, 16, generator=rng())

    class Knowing(torch.nn.Module):
        """Solves the noisy latents for the velocity."""

        def set_attn_processor(self, processor):
            pass

        def forward(self, noisy, timesteps, embeds):
            alpha = diffusion.alphas[timesteps].view(-1, 1, 1, 1)
            noise = (noisy - alpha.sqrt() * latents) / (1 - alpha).sqrt()
            velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
            return type("Output", (), {"sample": velocity})

    batch = LatentBatch(
        latents, torch.zeros(3, 2, 16, 16), diffusion.empty.repeat(3, 1), -torch.ones(3, 32).long()
    )
    loss, figures = diffusion.loss(Knowing(), batch, rng(5))
    assert loss.item() < 1e-6  # rounding of the division
    assert set(figures) == {"v_mse"}
