"""The safety checker against diffusers' own, and what becomes of a flagged picture."""

from dataclasses import replace

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from farm.backbones.host import OperationHost
from farm.backbones.safety import SafetyChecker
from farm.calls import Call
from farm.errors import InvalidRequestError
from farm.runner.method import Outputs
from farm.runner.safety import shown_to_checker
from tests.tiny import _seeded as seeded
from tests.tiny import tiny_networks, tiny_spec

SIZE = 16
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
}


def tiny_checker(special=(1.0, 1.0, 1.0), concepts=1.0):
    """Thresholds of one: nothing is flagged, since no cosine is above."""
    config = CLIPConfig(vision_config=_VISION, projection_dim=16)
    checker = seeded(lambda: StableDiffusionSafetyChecker(config), 0)
    with torch.no_grad():
        checker.special_care_embeds_weights.copy_(torch.tensor(special))
        checker.concept_embeds_weights.fill_(concepts)
    return checker


def pictures(count=4):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, SIZE, SIZE, generator=generator)


@pytest.mark.parametrize("special", [(1.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (0.2, 0.0, -0.2)])
@pytest.mark.parametrize("concepts", [1.0, 0.3, 0.1, 0.0, -1.0])
def test_verdict_and_scores_are_diffusers(special, concepts):
    checker = tiny_checker(special, concepts)
    own = SafetyChecker(checker)
    found = own(pictures())
    pixels = own.pixels(pictures())
    _, flagged = checker(pixels, [torch.ones(3, 4, 4)] * len(pixels))
    assert found.flagged.tolist() == flagged


def test_a_special_concept_is_stricter_on_the_others():
    """A concept just below its threshold is met once a special one is."""
    own = SafetyChecker(tiny_checker())
    below = own(pictures(1)).scores
    nearest = below.max().item()
    just = 1 + nearest + 0.005  # the nearest concept is then .005 below
    assert not SafetyChecker(tiny_checker(concepts=just))(pictures(1)).flagged.any()
    strict = SafetyChecker(tiny_checker((-1.0, 1.0, 1.0), just))(pictures(1))
    assert strict.flagged.all()
    assert strict.scores.max().item() == pytest.approx(0.005, abs=1.1e-3)


def test_pixels_are_those_of_the_library_s_processor():
    """PIL rounds to bytes after each of its two passes: two of 255 steps over the least std.

    Grey enough that no pass overshoots what a byte holds, where PIL cuts twice.
    """
    values = (64 + pictures(1)[0] * 128).round()
    wide = torch.nn.functional.interpolate(values[None], (40, 64), mode="nearest")[0]
    image = Image.fromarray(wide.permute(1, 2, 0).byte().numpy())
    processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    found = SafetyChecker(tiny_checker()).pixels(wide[None] / 255)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=2 / 255 / 0.26)


def networks_with(checker):
    spec = tiny_spec().model_copy(update={"safety": True})
    return replace(tiny_networks(spec), safety=SafetyChecker(checker))


def test_a_host_with_a_checker_answers_and_one_without_does_not():
    call = Call("safety.check", {"image": pictures(1)[0].numpy()})
    (answer,) = OperationHost(networks_with(tiny_checker())).run_all([call])
    assert not answer.arrays["flagged"]
    assert answer.arrays["scores"].shape == (17,)
    with pytest.raises(InvalidRequestError, match=r"no operation 'safety\.check'"):
        OperationHost(tiny_networks()).run_all([call])


@pytest.mark.parametrize(("threshold", "flagged"), [(-1.0, True), (1.0, False)])
def test_flagged_pictures_become_black_and_the_verdict_says_which(threshold, flagged):
    networks = networks_with(tiny_checker(concepts=threshold))
    grey = torch.full((1, 8, 8), 0.5)
    outputs = Outputs(
        edited=torch.full((3, 20, 30), 0.5),
        pictures={"reconstruction": pictures(1)[0], "mask": grey},
        figures={"x": 1.0},
    )
    shown, verdict = shown_to_checker(outputs, OperationHost(networks), networks.spec)
    assert verdict == {"edited": flagged, "reconstruction": flagged}
    assert bool((shown.edited == 0).all()) is flagged
    assert bool((shown.pictures["reconstruction"] == 0).all()) is flagged
    assert torch.equal(shown.pictures["mask"], grey), "a mask shows nothing"


def test_a_set_without_a_checker_asks_nobody():
    outputs = Outputs(edited=pictures(1)[0], pictures={}, figures={})
    nobody = OperationHost(tiny_networks(), operations={})
    assert shown_to_checker(outputs, nobody, tiny_spec()) == (outputs, None)
