import pytest
import torch
import torch.nn.functional as F

from farm.errors import InvalidImageError, ModelSetError
from farm.metrics.keys import clip_keys, vit_keys
from farm.metrics.normalisation import CLIP, IMAGENET
from tests.farm.metrics.networks import picture, tiny_vit
from tests.tiny import tiny_clip


def test_keys_of_a_vit_are_its_last_blocks():
    """Block by block, and the middle third of the joint projection."""
    vit, image = tiny_vit(), picture(2, 3, 16, 16)
    states = vit.norm_pre(vit._pos_embed(vit.patch_embed(IMAGENET.normalised(image))))
    for block in vit.blocks[:-1]:
        states = block(states)
    last = vit.blocks[-1]
    weight, bias = last.attn.qkv.weight[8:16], last.attn.qkv.bias[8:16]
    expected = F.linear(last.norm1(states), weight, bias)
    keys = vit_keys(vit, name="tiny", size=16)(image)
    assert keys.shape == (2, 17, 8)  # 16 patches and the class token
    torch.testing.assert_close(keys, expected)


def test_keys_of_clip_are_its_last_blocks():
    tower, image = tiny_clip().vision_model, picture(2, 3, 16, 16)
    output = tower(pixel_values=CLIP.normalised(image), output_hidden_states=True)
    last = tower.encoder.layers[-1]
    expected = last.self_attn.k_proj(last.layer_norm1(output.hidden_states[-2]))
    torch.testing.assert_close(clip_keys(tower, name="tiny")(image), expected)


def test_the_benchmarks_input_is_255_times_too_bright_and_not_antialiased():
    network = vit_keys(tiny_vit(), name="tiny", size=16)
    large = picture(1, 3, 64, 64)
    small = F.interpolate(large, (16, 16), mode="bilinear", antialias=False)
    released = network(large, levels=255.0, antialias=False)
    torch.testing.assert_close(released, network(small * 255))
    assert not torch.allclose(released, network(large, levels=255.0), atol=1e-3)
    assert not torch.allclose(released, network(large, antialias=False), atol=1e-3)


def test_gradient_reaches_the_picture_and_not_the_network():
    network = vit_keys(tiny_vit().double(), name="tiny", size=16)
    image = picture(1, 3, 16, 16, dtype=torch.float64).requires_grad_()
    direction = picture(1, 3, 16, 16, seed=1, dtype=torch.float64) - 0.5

    def value(moved):
        return network(moved).square().sum()

    value(image).backward()
    slope = (value(image + 1e-5 * direction) - value(image - 1e-5 * direction)) / 2e-5
    assert slope.item() == pytest.approx((image.grad * direction).sum().item(), rel=1e-6)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_no_hook_is_left_behind():
    vit = tiny_vit()
    network = vit_keys(vit, name="tiny", size=16)
    network(picture(1, 3, 16, 16))
    with pytest.raises(InvalidImageError, match="found 20x16 pixels, expected a square"):
        network(picture(1, 3, 16, 20))
    assert not vit.blocks[-1].attn.qkv._forward_hooks


def test_a_network_without_joint_projection_is_refused():
    vit = tiny_vit()
    vit.blocks[-1].attn.qkv = torch.nn.Identity()
    with pytest.raises(ModelSetError, match="no joint projection"):
        vit_keys(vit, name="tiny", size=16)
