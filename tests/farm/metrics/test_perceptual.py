import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.image.lpips import _LPIPS

from farm.errors import ModelSetError
from farm.metrics.distance import PairDistance
from farm.metrics.normalisation import CLIP
from farm.metrics.perceptual import (
    LearnedDistance,
    autoencoder_distance,
    build_lpips,
    clip_distance,
)
from tests.farm.metrics.networks import picture, squeeze_state
from tests.tiny import tiny_autoencoder, tiny_clip


@pytest.fixture(scope="module")
def lpips():
    return LearnedDistance(build_lpips("squeeze", squeeze_state()), name="lpips-squeeze")


@pytest.fixture(params=["lpips", "vae", "clip"])
def distance(request, lpips):
    match request.param:
        case "lpips":
            return lpips
        case "vae":
            return autoencoder_distance(tiny_autoencoder().vae, name="vae")
        case _:
            return clip_distance(tiny_clip().vision_model, name="clip")


def test_lpips_is_torchmetrics_with_the_same_trunk(lpips):
    with torch.random.fork_rng():
        oracle = _LPIPS(net="squeeze", pnet_rand=True)
    state = squeeze_state()
    with torch.no_grad():
        for name, parameter in oracle.net.named_parameters():
            parameter.copy_(state["features." + name.split(".", 2)[2]])
    first, second = picture(3, 3, 64, 64), picture(3, 3, 64, 64, seed=1)
    expected = oracle(first, second, normalize=True)[:, 0, 0, 0]
    # the two packages keep the unit length from division by zero in different ways: 1e-8 of it
    torch.testing.assert_close(lpips(first, second), expected, rtol=1e-4, atol=1e-7)


def test_the_heads_are_those_of_the_package_and_no_random_number_is_used(lpips):
    weights, state = squeeze_state(), torch.get_rng_state()
    again = build_lpips("squeeze", weights)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, mine), (_, theirs) in zip(
        lpips.network.named_parameters(), again.named_parameters(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    assert min(head.model[-1].weight.min() for head in again.lins) >= 0  # trained, non-negative


def test_unit_range_is_the_picture_as_it_is(lpips):
    unit = LearnedDistance(lpips.network, name="lpips-squeeze", input_range="unit")
    first, second = picture(1, 3, 64, 64), picture(1, 3, 64, 64, seed=1)
    torch.testing.assert_close(unit(first, second), lpips((first + 1) / 2, (second + 1) / 2))
    assert (unit.name, lpips.name) == ("lpips-squeeze-unit", "lpips-squeeze")


def test_another_networks_weights_are_refused():
    state = squeeze_state()
    with pytest.raises(ModelSetError, match=r"features\.0\.weight of shape \(64, 3, 3, 3\)"):
        build_lpips("alex", state)
    del state["features.12.expand3x3.bias"]
    with pytest.raises(ModelSetError, match=r"features\.12\.expand3x3\.bias of shape None"):
        build_lpips("squeeze", state)


def test_distance_of_features_is_zero_for_equal_and_grows(distance):
    assert isinstance(distance, PairDistance)
    image, noise = picture(2, 3, 64, 64), picture(2, 3, 64, 64, seed=1) - 0.5
    assert distance(image, image).tolist() == [0, 0]
    near, far = distance(image, image + 0.05 * noise), distance(image, image + 0.5 * noise)
    assert (near > 0).all()
    assert (far > near).all()
    # each pair on its own; the batch is only rounding away
    torch.testing.assert_close(distance(image[1:], image[1:] + 0.05 * noise[1:]), near[1:])


def test_distance_has_its_gradient(distance):
    distance.double()
    first, second = (picture(1, 3, 32, 32, seed=s, dtype=torch.float64) for s in (0, 1))
    first.requires_grad_()
    direction = picture(1, 3, 32, 32, seed=2, dtype=torch.float64) - 0.5
    distance(first, second).sum().backward()
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (distance(first + s * direction, second) for s in (step, -step))
    slope = ((ahead - behind) / (2 * step)).item()
    # a central difference: rounding 1e-16 / 1e-6 of values near 1, kinks of ReLU in between
    assert slope == pytest.approx((first.grad * direction).sum().item(), rel=1e-4)
    distance.float()


def test_features_of_an_autoencoder_are_unit_vectors_by_place():
    vae = tiny_autoencoder().vae
    first, second = picture(1, 3, 16, 16), picture(1, 3, 16, 16, seed=1)
    expected = []
    states = [vae.encoder.conv_in(p * 2 - 1) for p in (first, second)]
    for block in vae.encoder.down_blocks:
        states = [block(state) for state in states]
        cosine = F.cosine_similarity(*states, dim=1)
        expected.append((2 - 2 * cosine).mean())  # |a - b|² of unit vectors
    found = autoencoder_distance(vae, name="tiny")(first, second)
    torch.testing.assert_close(found[0], torch.stack(expected).mean())


def test_features_of_clip_leave_the_class_token_out():
    tower = tiny_clip().vision_model
    pair = [picture(1, 3, 16, 16), picture(1, 3, 16, 16, seed=1)]
    outputs = [tower(pixel_values=CLIP.normalised(p), output_hidden_states=True) for p in pair]
    first, second = (o.hidden_states[1][:, 1:] for o in outputs)  # its only block
    expected = (2 - 2 * F.cosine_similarity(first, second, dim=-1)).mean()
    torch.testing.assert_close(clip_distance(tower, name="tiny")(*pair)[0], expected)
