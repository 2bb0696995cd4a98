import pytest
import torch

from farm.backbones.capture import StepCache, bucket_for, filled_up
from farm.backbones.training_operations import context_loss, value_loss
from tests.tiny import TOKENS, WIDTH, tiny_networks


def double(tensors):
    return {"y": 2 * tensors["x"]}


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 4), (8, 8), (9, 16), (33, 33)])
def test_a_batch_goes_into_the_smallest_bucket_that_holds_it(rows, size):
    assert bucket_for(rows) == size


def test_a_bucket_is_filled_with_the_last_row():
    found = filled_up({"x": torch.tensor([[1.0], [2.0]]), "t": torch.tensor([5, 6])}, 4)
    assert found["x"].tolist() == [[1], [2], [2], [2]]
    assert found["t"].tolist() == [5, 6, 6, 6]


@pytest.mark.parametrize("enabled", [True, False])
def test_filling_up_changes_no_answer(enabled):
    seen = []

    def step(tensors):
        seen.append(len(tensors["x"]))
        return double(tensors)

    steps = StepCache(enabled=enabled)
    found = steps.run("double", step, {"x": torch.arange(3.0)})
    assert found["y"].tolist() == [0, 2, 4]
    assert seen == [4 if enabled else 3]
    assert steps.describe() == {"graphs": 0, "captures": 0, "replays": 0}, "there is no CUDA"


def test_more_rows_than_any_bucket_are_computed_as_they_are():
    steps = StepCache(enabled=True, buckets=(1, 2))
    assert steps.run("double", double, {"x": torch.arange(5.0)})["y"].tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("loss", [value_loss, context_loss])
def test_a_training_step_in_a_bucket_is_the_step(loss):
    """Three rows in a bucket of four: equal but for the rounding of another batch."""
    networks = tiny_networks()
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(3, *shape, generator=generator)

    latents, embeds = (4, 8, 8), (TOKENS, WIDTH)
    tensors = {
        "latents": drawn(*latents),
        "timestep": torch.tensor([10, 500, 900]),
        "embeds": drawn(*embeds),
        "alpha": torch.full((3,), 0.5),
        "alpha_prev": torch.full((3,), 0.6),
        "target_latents": drawn(*latents),
    }
    if loss is value_loss:
        tensors |= {
            "value_embeds": drawn(*embeds),
            "noise_uncond": drawn(*latents),
            "guidance_scale": torch.full((3,), 7.5),
            "map_latents": drawn(*latents),
            "map_timestep": torch.tensor([10, 500, 900]),
            "attention_weight": torch.ones(3),
        }
    else:
        tensors |= {"other_noise": drawn(*latents), "weight": torch.full((3,), 7.5)}
    plain = loss(networks, tensors, {}).tensors
    networks.steps.enabled = True
    found = loss(networks, tensors, {}).tensors
    assert found.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
