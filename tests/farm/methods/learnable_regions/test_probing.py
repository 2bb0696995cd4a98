import pytest
import torch

from farm.methods.learnable_regions.config import ProbeConfig
from farm.methods.learnable_regions.contrast import grounded, prompt_contrast
from farm.methods.learnable_regions.probing import noise_errors
from farm.methods.learnable_regions.verdict import verdicts
from farm.regions import RegionsClient
from tests.farm.methods.learnable_regions.runs import metered_client, tiny_host
from tests.stages import finish
from tests.tiny import TOKENS, WIDTH
from tests.tiny_regions import tiny_region_spec

CONFIG = ProbeConfig(levels=(0.2, 0.7), noises=3)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count):
    return list(random(count, 3, 16, 16).sigmoid())


def errors(*arguments, seed):
    _, found = finish(noise_errors(*arguments, seed=seed, stage="probing"))
    return found


def contrast(*arguments):
    _, found = finish(prompt_contrast(*arguments, seed=0))
    return found


def judged(*arguments):
    _, found = finish(verdicts(*arguments, seed=0))
    return found


PROMPTS = tuple(random(2, TOKENS, WIDTH, seed=7))
OF_EACH = 2 * 2 * 3
"""Questions about a picture: two prompts, two levels, three noises."""
GREY = torch.full((4, 8, 8), -1.0)


class Believer(RegionsClient):
    """Sees latents of its own, with an error that grows with the prompt's first number, by place.

    `asked` are the queries that came.
    """

    def __init__(self, where, latents=None):
        super().__init__(tiny_host(), tiny_region_spec())
        self.where = where
        self.latents = random(1, 4, 8, 8, seed=1) if latents is None else latents
        self.asked = []

    def encode(self, images):
        assert torch.equal(images[-1], torch.full((3, 16, 16), 0.5))
        return [*self.latents, GREY]

    def inpaint(self, queries):
        first = len(self.asked)
        self.asked += queries
        return [
            self.latents[number // OF_EACH] + query.embeds[0, 0] * self.where
            for number, query in enumerate(queries, first)
        ]


def said(number):
    return torch.full((TOKENS, WIDTH), float(number))


def test_errors_are_the_network_s_predicted_noise_minus_the_true_one():
    """The way over a DDIM step to the clean picture gives the same as asking for the noise."""
    client, meter = metered_client()
    found = errors(pictures(2), PROMPTS, client, CONFIG, seed=3)
    assert found.shape == (2, 2, 2, 3, 4, 8, 8)
    assert meter.work == {"unet_forward": 2 * 2 * 2 * 3, "vae_encode": 3}
    latents = client.encode(pictures(2))
    believer = Believer(torch.zeros(4, 8, 8), latents)
    errors(pictures(2), PROMPTS, believer, CONFIG, seed=3)
    (left,) = client.encode([torch.full((3, 16, 16), 0.5)])
    predict = tiny_host()._networks.regions.inpainter
    for number, (query, error) in enumerate(zip(believer.asked, found.flatten(0, 3), strict=True)):
        noise = (query.latents - query.alpha**0.5 * latents[number // 12]) / (
            1 - query.alpha
        ) ** 0.5
        told = (query.latents, torch.tensor(query.timestep), query.embeds, query.mask, left)
        # float32 through a division by sqrt(alpha), which at level .7 is .3
        expected = predict(*(t[None] for t in told))[0] - noise
        torch.testing.assert_close(error, expected, atol=2e-5, rtol=1e-4)


def test_noise_is_common_to_pictures_and_prompts_and_keyed_by_the_seed():
    same = random(1, 4, 8, 8).expand(2, -1, -1, -1)
    found = []
    for seed in (3, 3, 4):
        believer = Believer(torch.zeros(4, 8, 8), same)
        errors(pictures(2), PROMPTS, believer, CONFIG, seed=seed)
        found.append(torch.stack([query.latents for query in believer.asked]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    by_picture_and_prompt = found[0].unflatten(0, (4, 6))
    assert all(torch.equal(one, by_picture_and_prompt[0]) for one in by_picture_and_prompt)
    assert len({tuple(one.flatten().tolist()) for one in by_picture_and_prompt[0]}) == 6


def test_whoever_watches_hears_of_every_sixteen_questions():
    """A real model on a CPU needs minutes for all of them, and silence is taken for a hang."""
    believer = Believer(torch.zeros(4, 8, 8), random(3, 4, 8, 8))
    reports, _ = finish(verdicts(pictures(3), PROMPTS, believer, CONFIG, seed=0))
    assert [(r.stage, r.step, r.total) for r in reports] == [
        ("learnable_regions.verdict", step, 36) for step in (16, 32, 36)
    ]


def test_all_of_the_picture_is_the_hole():
    believer = Believer(torch.zeros(4, 8, 8))
    errors(pictures(1), PROMPTS, believer, CONFIG, seed=0)
    assert [query.timestep for query in believer.asked] == [200, 200, 200, 699, 699, 699] * 2
    assert all(torch.equal(query.mask, torch.ones(1, 8, 8)) for query in believer.asked)
    assert all(torch.equal(query.left, GREY) for query in believer.asked)


def test_the_contrast_is_where_the_prompts_make_a_difference():
    where = torch.zeros(4, 8, 8)
    where[:, 1, 5] = 2.0
    where[:2, 6, 2] = 1.0  # half as far in half of the channels
    square = torch.zeros(3, 16, 16)
    found = contrast(square, (said(1), said(3)), Believer(where), CONFIG)
    expected = torch.zeros(8, 8)
    expected[1, 5], expected[6, 2] = 1.0, 0.25
    torch.testing.assert_close(found, expected)


def test_prompts_that_make_no_difference_have_no_contrast():
    believer = Believer(torch.ones(4, 8, 8))
    found = contrast(torch.zeros(3, 16, 16), (said(2), said(2)), believer, CONFIG)
    assert torch.equal(found, torch.zeros(8, 8))


def test_relevance_and_contrast_are_stretched_and_mixed():
    relevance = torch.tensor([[1.0, 1.0], [1.0, 3.0]])
    apart = torch.tensor([[0.0, 0.5], [0.2, 0.1]])
    assert torch.equal(grounded(relevance, None, 0.25), relevance)
    expected = torch.tensor([[0.0, 0.25], [0.1, 0.75 + 0.05]])
    torch.testing.assert_close(grounded(relevance, apart, 0.25), expected)


@pytest.mark.parametrize(("caption", "target"), [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0)])
def test_a_verdict_by_hand(caption, target):
    """Errors of the clean picture are those of the noise up to sqrt(a / (1 - a)); the verdict has
    one logarithm of the caption's square and two of the target's."""
    believer = Believer(torch.ones(4, 8, 8))
    found = judged(pictures(1), (said(caption), said(target)), believer, CONFIG)
    signal = torch.tensor([query.alpha for query in believer.asked[::3]][:2])
    log = (signal / (1 - signal)).log().mean()
    hand = (torch.tensor(caption**2).log() + log) - 2 * (torch.tensor(target**2).log() + log)
    torch.testing.assert_close(found, hand[None])


def test_the_picture_that_is_nearer_to_the_target_has_the_better_verdict():
    """Both are predicted equally well under the caption."""

    class Partial(Believer):
        def inpaint(self, queries):
            first = len(self.asked)
            found = super().inpaint(queries)
            for number, query in enumerate(queries):
                if 6 <= first + number < 12:  # the first picture, the target
                    assert query.embeds[0, 0] == 3
                    found[number] = self.latents[0] + 0.1
            return found

    believer = Partial(torch.ones(4, 8, 8), random(2, 4, 8, 8))
    first, second = judged(pictures(2), (said(3), said(3)), believer, CONFIG)
    assert first > second


def test_verdicts_side_by_side_are_those_of_each_alone():
    client, _ = metered_client()
    both = judged(pictures(2), PROMPTS, client, CONFIG)
    for number, picture in enumerate(pictures(2)):
        alone = judged([picture], PROMPTS, client, CONFIG)
        torch.testing.assert_close(alone, both[number : number + 1], atol=1e-5, rtol=1e-4)
