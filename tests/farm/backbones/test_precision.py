"""Half precision on a CPU: what is told and answered stays single, and near to single precision."""

from dataclasses import replace

import pytest
import torch

from farm.backbones.host import OperationHost
from farm.backbones.networks import load_networks
from farm.backbones.precision import (
    PRECISION_VARIABLE,
    Precision,
    captures,
    compiles,
    keep_single,
    laid_out,
    precision_for,
)
from farm.backbones.stable_diffusion import NoisePredictor
from farm.diffusion import DiffusionClient
from farm.errors import InvalidRequestError, ModelSetError
from tests.farm.backbones.queries import edit_query
from tests.tiny import TOKENS, WIDTH, tiny_networks, tiny_spec, tiny_unet

NEAR = 0.06
"""Of the largest value, or of the norm: bfloat16 has 8 bits, the tiny network some ten layers."""


def halved(spec=None):
    spec = tiny_spec() if spec is None else spec
    unet = tiny_unet().to(torch.bfloat16)
    return replace(tiny_networks(spec), unet=NoisePredictor(unet, spec))


def near(found, expected):
    assert found.dtype == torch.float32
    return (found - expected).abs().max() < NEAR * expected.abs().max()


def test_noise_is_single_precision_and_near():
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    embeds = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    timesteps = torch.tensor([100, 700])
    with torch.no_grad():
        expected = tiny_networks().unet(latents, timesteps, embeds)
        found = halved().unet(latents, timesteps, embeds)
    assert near(found, expected)
    assert not torch.equal(found, expected), "it was computed in half precision"


def test_a_gradient_is_single_precision_and_near():
    def gradient(networks):
        embeds = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
        embeds.requires_grad_()
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        loss = networks.unet(latents, torch.tensor([500]), embeds).square().sum()
        return torch.autograd.grad(loss, embeds)[0]

    found, expected = gradient(halved()), gradient(tiny_networks())
    assert found.dtype == torch.float32
    assert (found - expected).norm() < NEAR * expected.norm()


@pytest.mark.parametrize(
    ("asked", "device", "unet", "channels_last"),
    [
        ("auto", "cpu", torch.float32, False),
        ("auto", "cuda", torch.bfloat16, True),
        ("fp32", "cuda", torch.float32, True),
        ("fp16", "cuda", torch.float16, True),
        ("bf16", "cpu", torch.bfloat16, False),
    ],
)
def test_the_device_decides_unless_somebody_asks(monkeypatch, asked, device, unet, channels_last):
    monkeypatch.setenv(PRECISION_VARIABLE, asked)
    assert precision_for(device) == Precision(unet, channels_last)


def test_another_precision_is_refused():
    with pytest.raises(InvalidRequestError, match="'int8', expected auto, fp32, bf16, fp16"):
        precision_for("cpu", "int8")


def test_switches_are_read(monkeypatch):
    assert (captures(), compiles()) == (True, False)
    monkeypatch.setenv("EDITFARM_CAPTURE", "0")
    monkeypatch.setenv("EDITFARM_COMPILE", "1")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert (captures(), compiles()) == (False, True)


def test_compiling_without_a_compiler_is_refused_before_any_step(monkeypatch):
    monkeypatch.setenv("EDITFARM_COMPILE", "1")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(InvalidRequestError, match="install gcc"):
        compiles()


@pytest.fixture
def tf32():
    """As torch comes, and left so: convolutions are computed in TF32."""
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = True
    yield lambda: [switch.allow_tf32 for switch in switches]
    for switch, was in zip(switches, before, strict=True):
        switch.allow_tf32 = was


def test_single_precision_is_not_tf32_on_an_accelerator(tf32):
    keep_single("cpu")
    assert tf32() == [True, True], "a CPU has none, and others' settings are theirs"
    keep_single("cuda:0")
    assert tf32() == [False, False]
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


def test_networks_are_loaded_with_single_precision_kept(monkeypatch, tmp_path):
    asked = []

    def stop(device):
        asked.append(device)
        raise ModelSetError("before anything is read")

    monkeypatch.setattr("farm.backbones.networks.keep_single", stop)
    with pytest.raises(ModelSetError, match="before anything"):
        load_networks(tmp_path, tiny_spec(), "cuda:0")
    assert asked == ["cuda:0"]


def test_channels_last_changes_the_layout_alone():
    unet = laid_out(tiny_unet(), Precision(channels_last=True))
    weight = unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, tiny_unet().conv_in.weight)
    assert laid_out(tiny_unet(), Precision()).conv_in.weight.is_contiguous()


def test_an_edit_s_attention_control_works_in_half_precision():
    """Sources kept, self-attention replaced, cross maps edited and scored: all in one call."""
    answers = {}
    for name, networks in (("single", tiny_networks()), ("half", halved())):
        client = DiffusionClient(OperationHost(networks), networks.spec)
        answers[name] = client.edit_noises([edit_query(item) for item in range(3)])
    for found, expected in zip(answers["half"], answers["single"], strict=True):
        assert near(found.cond, expected.cond)
        assert near(found.uncond, expected.uncond)
