import math

import pytest
import torch
import torch.nn.functional as F

from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.mapping_network import (
    build_mapping_network,
    initialise,
    output_of,
    stack,
    state_of,
    unstack,
    value_input,
)
from farm.training import keyed_generator
from tests.tiny import tiny_spec

SPEC = tiny_spec()


def built(seed=0, **config):
    network = build_mapping_network(SPEC, InversionConfig(**config))
    initialise(network, keyed_generator(seed, "test"))
    return network


def features():
    shape = (SPEC.image_tokens, SPEC.text_width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_output_is_the_written_formula(blocks, training):
    """Products over tokens, normalisation by this input's own statistics, in any mode."""
    network = built(blocks=blocks).train(training).double()
    for module in network.conv_block:
        module[1].weight.data.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
        module[1].bias.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(3))
    x = features().double()
    h = network.conv_start.weight[..., 0] @ x + network.conv_start.bias[:, None]
    for conv, norm, _ in network.conv_block:
        h = conv.weight[..., 0] @ h + conv.bias[:, None]
        h = (h - h.mean(1, keepdim=True)) / (h.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        h = F.leaky_relu(h * norm.weight[:, None] + norm.bias[:, None], 0.01)
    expected = network.conv_end.weight[..., 0] @ h + network.conv_end.bias[:, None]
    torch.testing.assert_close(network(x[None])[0], expected)


@pytest.mark.parametrize(("form", "parts"), [("modulated", 2), ("direct", 1)])
def test_sizes_follow_from_the_model(form, parts):
    network = built(value_form=form)
    assert network(features()[None]).shape == (1, parts * SPEC.tokens, SPEC.text_width)


def test_size_for_stable_diffusion_is_the_published_one():
    spec = SPEC.model_copy(update={"tokens": 77, "image_tokens": 197})
    network = build_mapping_network(spec, InversionConfig())
    assert sum(p.numel() for p in network.parameters()) == 78_540


def test_value_inputs():
    embeds = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    output = torch.tensor([[2.0, 2.0], [0.5, 1.0], [10.0, 20.0], [30.0, 40.0]])
    expected = torch.tensor([[12.0, 24.0], [31.5, 44.0]])
    assert torch.equal(value_input(output, embeds), expected)
    assert torch.equal(value_input(output[:2], embeds), output[:2])


def test_initialisation_is_torch_s_own_distribution_keyed_and_private():
    before = torch.get_rng_state()
    first, again, other = built(seed=3), built(seed=3), built(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in state_of(first).items():
        assert torch.equal(value, state_of(again)[name])
    assert not torch.equal(first.conv_start.weight, other.conv_start.weight)
    wide = build_mapping_network(SPEC.model_copy(update={"image_tokens": 500}), InversionConfig())
    initialise(wide, keyed_generator(0))
    weight = wide.conv_start.weight
    bound = 1 / math.sqrt(500)
    assert weight.abs().max() <= bound
    # 8000 uniform draws: the deviation of their standard deviation is about 0.5 per cent
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_a_bias_before_normalisation_has_no_gradient():
    """Spec §4: batch statistics take it away again."""
    network = built().double()
    output = network(features()[None].double())
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(4)).double()
    (output * weights).sum().backward()
    assert network.conv_block[0][0].bias.grad.abs().max() < 1e-10  # float64, gradients near 1
    assert network.conv_start.weight.grad.abs().max() > 0.1


def test_stacked_networks_come_back():
    networks = [built(seed=n, blocks=2) for n in range(3)]
    states = [state_of(network) for network in networks]
    assert next(iter(stack(states).values())).shape[0] == 3
    back = unstack(stack(states))
    for network, state in zip(networks, back, strict=True):
        with torch.no_grad():
            assert torch.equal(output_of(state, features()), network(features()[None])[0])
    assert unstack({}) == []
