"""Operations of Learnable Regions: asked by their client, one by one and all at once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks, load_networks
from farm.backbones.region_inputs import REGION_INPUTS
from farm.backbones.region_operations import REGION_OPERATIONS
from farm.calls import Answer, Call
from farm.errors import InvalidRequestError, ModelSetError
from farm.losses.views import plain_views, sample_views
from farm.regions import InpaintQuery, InpaintSample, RegionsClient
from farm.samplers.ddim import Move, ddim_step
from farm.samplers.guidance import guide
from farm.training import keyed_generator
from tests.tiny import TOKENS, WIDTH, tiny_networks, write_tiny_set
from tests.tiny_regions import (
    picture,
    tiny_region_networks,
    tiny_region_spec,
    write_tiny_region_set,
)

TIMESTEPS = (999, 500, 3)
ALPHAS = ((0.05, 0.12), (0.3, 0.4), (0.998, 0.9991))
BATCHED = 1e-5
"""definitions.md: a single operation, relative, in single precision."""


class Recorder:
    """An executor that keeps the calls of a client."""

    def __init__(self, host: OperationHost) -> None:
        self.host, self.calls = host, list[Call]()

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        self.calls.extend(calls)
        return self.host.run_all(calls)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return tiny_region_networks()


@pytest.fixture(scope="module")
def host(networks: Networks) -> OperationHost:
    return OperationHost(networks)


@pytest.fixture
def client(host: OperationHost, networks: Networks) -> RegionsClient:
    return RegionsClient(host, networks.spec)


def normal(item: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(item + 17 * len(shape)))


def query(item: int, scale: float | None = None) -> InpaintQuery:
    return InpaintQuery(
        latents=normal(item, 4, 8, 8),
        timestep=TIMESTEPS[item],
        alpha=ALPHAS[item][0],
        alpha_prev=ALPHAS[item][1],
        embeds=normal(item, TOKENS, WIDTH),
        uncond_embeds=normal(item + 5, TOKENS, WIDTH),
        guidance_scale=3.0 + item if scale is None else scale,
        mask=(normal(item, 1, 8, 8) > 0).float(),
        left=normal(item + 9, 4, 8, 8),
    )


def sample(item: int, steps: int = 3) -> InpaintSample:
    """Three steps, which every item begins at a timestep of its own."""
    one = query(item)
    moves = [Move(TIMESTEPS[(item + n) % 3], *ALPHAS[(item + n) % 3]) for n in range(steps)]
    names = ("latents", "embeds", "uncond_embeds", "guidance_scale", "mask", "left")
    return InpaintSample(moves=moves, **{name: getattr(one, name) for name in names})


def ids(item: int) -> list[int]:
    return [1, 2, 3 + item, *[28] * (TOKENS - 3)]


ASKS: dict[str, Callable[[RegionsClient, int], Any]] = {
    "dino.features": lambda c, i: c.dino(picture(seed=i), features="keys" if i < 0 else "tokens"),
    "scorer.embed_text": lambda c, i: c.score_text(ids(i)),
    "scorer.image": lambda c, i: c.score_images([picture(20, 20, seed=i)], scale=1.0 + i),
    "scorer.views": lambda c, i: c.score_views(
        [picture(20, 20, seed=i)], sample_views(3, keyed_generator(i)), scale=1.0 + i
    ),
    "scorer.relevance": lambda c, i: c.relevance(picture(20, 20, seed=i), normal(i, WIDTH)),
    "inpainting.step": lambda c, i: c.inpaint([query(i)]),
    "inpainting.sample": lambda c, i: c.sample([sample(i)]),
}


def test_every_operation_is_asked_and_says_what_it_takes() -> None:
    assert ASKS.keys() == REGION_OPERATIONS.keys() == REGION_INPUTS.keys()


@pytest.mark.parametrize("op", ASKS)
def test_a_batch_of_different_items_is_the_items_one_by_one(
    op: str, host: OperationHost, networks: Networks
) -> None:
    recorder = Recorder(host)
    for item in range(3):
        ASKS[op](RegionsClient(recorder, networks.spec), item)
    calls = recorder.calls
    assert [call.op for call in calls] == [op] * 3
    assert len({call.key for call in calls}) == 1
    single, batched = host.run_all(calls), host.run_batch(calls)
    for one, many in zip(single, batched, strict=True):
        assert isinstance(many, Answer)
        assert one.arrays.keys() == many.arrays.keys()
        assert one.work == many.work
        for name, expected in one.arrays.items():
            found = many.arrays[name]
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= BATCHED * np.abs(expected).max(), name


@pytest.mark.parametrize("op", ASKS)
def test_malformed_arrays_are_refused_in_words(
    op: str, host: OperationHost, networks: Networks
) -> None:
    recorder = Recorder(host)
    ASKS[op](RegionsClient(recorder, networks.spec), 0)
    (call,) = recorder.calls
    for name, array in call.arrays.items():
        (outcome,) = host.run_batch([Call(op, {**call.arrays, name: array[None]}, call.static)])
        assert isinstance(outcome, InvalidRequestError)
        assert name in outcome.message
        if not REGION_INPUTS[op][name].optional:
            rest = {n: a for n, a in call.arrays.items() if n != name}
            (outcome,) = host.run_batch([Call(op, rest, call.static)])
            assert isinstance(outcome, InvalidRequestError)


def test_dino_s_answer_is_the_network_s_without_its_class_token(
    client: RegionsClient, networks: Networks
) -> None:
    assert networks.regions is not None
    with torch.no_grad():
        expected = networks.regions.dino(picture()[None])
        raw = networks.regions.dino(picture()[None], normalise=False)
    found = client.dino(picture())
    attention = expected.attention[0, :, 1:].unflatten(-1, (8, 8))
    torch.testing.assert_close(found.attention, attention)
    torch.testing.assert_close(found.features, expected.tokens[0, 1:])
    keys = client.dino(picture(), features="keys").features
    torch.testing.assert_close(keys, expected.keys[0, 1:])
    plain = client.dino(picture(), normalise=False).features
    torch.testing.assert_close(plain, raw.tokens[0, 1:])


def test_layers_and_scale(client: RegionsClient, networks: Networks) -> None:
    assert networks.regions is not None
    scorer = networks.regions.scorer
    with torch.no_grad():
        expected = scorer(255 * picture()[None])
    (before,) = client.score_images([picture()], scale=255.0)
    (last,) = client.score_images([picture()], layer="last", scale=255.0)
    torch.testing.assert_close(before.tokens, expected.before_last[0])
    torch.testing.assert_close(last.tokens, expected.last[0])
    torch.testing.assert_close(last.embed, expected.embeds[0])


def test_plain_views_are_the_picture(client: RegionsClient) -> None:
    (views,) = client.score_views([picture()], plain_views(2))
    (whole,) = client.score_images([picture()])
    torch.testing.assert_close(views, whole.embed.expand(2, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scale", [1.0, 4.5])
def test_a_step_is_ddim_under_guidance(prediction: str, scale: float) -> None:
    spec = tiny_region_spec(prediction)
    networks = tiny_region_networks(spec)
    assert networks.regions is not None
    predict = networks.regions.inpainter
    for item in range(3):
        asked = query(item, scale)
        (found,) = RegionsClient(OperationHost(networks), spec).inpaint([asked])
        timestep = torch.tensor([asked.timestep])
        noises = []
        for embeds in (asked.uncond_embeds, asked.embeds):
            rest = (embeds[None], asked.mask[None], asked.left[None])
            with torch.no_grad():
                noises.append(predict(asked.latents[None], timestep, *rest)[0])
        noise = guide(noises[0], noises[1], scale)
        expected = ddim_step(asked.latents, noise, asked.alpha, asked.alpha_prev)
        # guidance multiplies rounding, and the noisiest step divides it by √ᾱ = .2
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_work_is_the_rows_that_the_networks_compute(networks: Networks) -> None:
    assert networks.regions is not None
    rows = {"unet_forward": 0, "scorer_forward": 0}

    def count(name: str) -> Callable[..., None]:
        def hook(_: Any, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            given = args[0] if args else next(iter(kwargs.values()))
            rows[name] += len(given)

        return hook

    hooks = [
        networks.regions.inpainter.unet.register_forward_pre_hook(
            count("unet_forward"), with_kwargs=True
        ),
        networks.regions.scorer.clip.vision_model.embeddings.register_forward_pre_hook(
            count("scorer_forward"), with_kwargs=True
        ),
    ]
    recorder = Recorder(OperationHost(networks))
    client = RegionsClient(recorder, networks.spec)
    client.inpaint([query(0), query(1, 1.0)])
    for name in ("scorer.image", "scorer.views", "scorer.relevance"):
        ASKS[name](client, 0)
    assert rows == {"unet_forward": 3, "scorer_forward": 1 + 3 + 1}
    answers = [OperationHost(networks).run_all([call])[0] for call in recorder.calls]
    for hook in hooks:
        hook.remove()
    for name, expected in (("unet_forward", 3), ("scorer_forward", 5)):
        assert sum(answer.work.get(name, 0) for answer in answers) == expected


def test_a_set_without_these_networks_has_none_of_it() -> None:
    host = OperationHost(tiny_networks())
    with pytest.raises(InvalidRequestError, match=r"no operation 'dino\.features'"):
        RegionsClient(host, tiny_region_spec()).dino(picture())


def test_a_folder_gives_back_what_was_saved(tmp_path: Any) -> None:
    write_tiny_region_set(tmp_path)
    loaded = load_networks(tmp_path, tiny_region_spec(), "cpu")
    assert {"dino", "scorer", "inpainting"} <= loaded.modules().keys()
    expected = tiny_region_networks()
    for op in ("dino.features", "scorer.views", "inpainting.step"):
        found, wanted = (
            ASKS[op](RegionsClient(OperationHost(n), n.spec), 0) for n in (loaded, expected)
        )
        if op == "dino.features":
            found, wanted = [found.features], [wanted.features]
        torch.testing.assert_close(found, wanted)


def test_a_folder_without_them_is_refused(tmp_path: Any) -> None:
    write_tiny_set(tmp_path)
    with pytest.raises(ModelSetError, match="cannot be loaded"):
        load_networks(tmp_path, tiny_region_spec(), "cpu")


def test_a_spec_of_another_dino_is_refused(tmp_path: Any) -> None:
    write_tiny_region_set(tmp_path)
    spec = tiny_region_spec()
    assert spec.regions is not None
    other = spec.model_copy(update={"regions": spec.regions.model_copy(update={"dino_patch": 4})})
    with pytest.raises(ModelSetError, match="patches of 2 pixels, and the model set's spec says 4"):
        load_networks(tmp_path, other, "cpu")
