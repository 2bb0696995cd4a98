import pytest
import torch

from farm.adapters.attention import AttentionControl
from farm.errors import UnknownWordError
from farm.metrics.ns_lpips import CORRECTED, RELEASED, ns_distance, ns_name, ns_pictures, ns_weight
from farm.metrics.ns_mask import (
    average_attention,
    background,
    foreground,
    inversion_attention,
    released_token,
)
from farm.metrics.perceptual import LearnedDistance, autoencoder_distance, build_lpips
from tests.farm.metrics.networks import picture, squeeze_state
from tests.tiny import TOKENS, WIDTH, tiny_autoencoder, tiny_networks, tiny_spec


@pytest.fixture(scope="module")
def distance():
    return autoencoder_distance(tiny_autoencoder().vae, name="tiny")


def spot() -> torch.Tensor:
    """Attention in the upper left quarter alone."""
    attention = torch.zeros(16, 16)
    attention[:8, :8] = 0.01
    return attention


def test_the_released_token_counts_words_not_tokens():
    assert released_token("a cat sitting", "cat") == 2
    assert released_token("a  cat", "cat") == 3  # the empty word between two spaces counts
    with pytest.raises(UnknownWordError, match=r"'dog' is not in the prompt 'a cat': .*\(a, cat\)"):
        released_token("a cat", "dog")


def test_attention_of_an_inversion_is_the_networks_own():
    networks, spec = tiny_networks(), tiny_spec()
    latents, embeds = picture(*spec.latent_shape), picture(TOKENS, WIDTH, seed=1)
    layers = inversion_attention(networks.unet, latents, embeds, [2, 3], spec, num_steps=4)
    control = AttentionControl(record_pixels=spec.map_size**2)
    # the first step sees the clean latents at the least noisy timestep: offset 1
    with torch.no_grad():
        networks.unet(latents[None], torch.tensor([1]), embeds[None], control)
    assert len(layers) == len(control.maps) > 0
    for layer, maps in zip(layers, control.maps, strict=True):
        assert layer.shape == (4, maps.shape[1], spec.map_size**2)
        torch.testing.assert_close(layer[0], maps[0, ..., 2] + maps[0, ..., 3])
    every = inversion_attention(networks.unet, latents, embeds, range(TOKENS), spec, num_steps=2)
    torch.testing.assert_close(torch.cat(every), torch.ones_like(torch.cat(every)))


def test_average_takes_all_heads_or_the_upper_half_of_each_layer():
    first = torch.stack([torch.full((2, 4), float(head)) for head in (1, 2, 3, 4)], dim=1)
    second = torch.full((2, 2, 4), 10.0)
    assert average_attention([first, second], heads="all").tolist() == [[5.0, 5.0]] * 2
    upper = average_attention([first, second], heads="upper")
    assert upper.flatten().tolist() == pytest.approx([(3 + 4 + 10) / 3] * 4)


def test_the_mask_is_black_where_the_word_is():
    mask = background(spot())
    assert (mask[:100, :100] == 0).all()
    assert (mask[160:] == 255).all()
    assert torch.equal(foreground(spot()), 255 - mask)


def test_levels_are_cut_not_rounded():
    attention = torch.full((16, 16), 0.999)
    attention[0, 0] = 1.0
    assert foreground(attention)[128, 128] == 254  # 254.7


def test_pictures_are_weighed_softly():
    attention = torch.full((16, 16), 0.5)
    attention[0, 0] = 1.0
    mask, white = background(attention), torch.ones(3, 64, 64)
    level = 1 - int(255 * 0.5) / 255
    released, corrected = (ns_pictures(white, mask, r)[0, 200, 200] for r in (RELEASED, CORRECTED))
    assert corrected.item() == pytest.approx(level)
    assert released.item() == pytest.approx(0.9999 * level)
    assert torch.equal(ns_weight(mask, CORRECTED)[0] * 255, mask.float())


def test_only_what_is_not_selected_counts(distance):
    source = picture(3, 64, 64)
    inside, outside = source.clone(), source.clone()
    inside[:, :20, :20] = 0
    outside[:, 48:, 48:] = 0
    mask = background(spot())
    for recipe in (RELEASED, CORRECTED):
        assert ns_distance(source, inside, mask, distance, recipe) == 0
        assert ns_distance(source, outside, mask, distance, recipe) > 1e-4


def test_the_name_tells_the_network_and_its_input(distance):
    lpips = build_lpips("squeeze", squeeze_state())
    released = LearnedDistance(lpips, name="lpips-squeeze", input_range=RELEASED.input_range)
    corrected = LearnedDistance(lpips, name="lpips-squeeze", input_range=CORRECTED.input_range)
    names = [ns_name(d) for d in (released, corrected, distance)]
    assert names == ["ns-lpips-squeeze-unit", "ns-lpips-squeeze", "ns-features-tiny"]


def test_released_lpips_sees_the_weighed_pictures_as_they_are():
    lpips = LearnedDistance(
        build_lpips("squeeze", squeeze_state()), name="lpips-squeeze", input_range="unit"
    )
    source, edited, mask = picture(3, 64, 64), picture(3, 64, 64, seed=1), background(spot())
    pair = [ns_pictures(p, mask, RELEASED)[None] for p in (source, edited)]
    with torch.no_grad():
        expected = lpips.network(*pair).item()
    assert ns_distance(source, edited, mask, lpips, RELEASED) == pytest.approx(expected)
