"""Adapters: their first values, their order, and that peft reads and runs them."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from farm.backbones.infinity.lora import Lora, LoraShape
from farm.backbones.infinity.quantiser import quantise, teacher_inputs
from farm.backbones.infinity.transformer import PassOptions
from farm.errors import CorruptArtifactError
from farm.methods.edit_infinity.config import LoraConfig
from farm.methods.edit_infinity.lora_format import (
    ADAPTER_FILE,
    CONFIG_FILE,
    LoraShapes,
    adapters_of,
    from_peft_tensors,
    initial_adapters,
    named_matrices,
    peft_config,
    peft_tensors,
)
from tests.tiny_infinity import CONFIG, SCHEDULE, SPEC, text_rows, tiny_transformer

LORA = LoraConfig(lora_r=3, lora_alpha=6.0)
SHAPES = LoraShapes.of(SPEC, LORA.lora_r)


def random_adapters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPES.size, generator=generator) * 0.2


def test_first_adapters_change_nothing_and_are_within_their_bounds():
    flat = initial_adapters(SHAPES, torch.Generator().manual_seed(1))
    for name, matrix in named_matrices(flat, SHAPES).items():
        if name.endswith("lora_B"):
            assert not matrix.any()
        else:
            layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5)
            bound = matrix.shape[1] ** -0.5
            assert layer.weight.abs().max() <= bound
            assert 0.8 * bound < matrix.abs().max() <= bound


def test_the_order_is_that_of_the_operation():
    """Both sides state it; a vector of theirs is one of ours."""
    shape = LoraShape(CONFIG.depth, CONFIG.width, CONFIG.hidden, LORA.lora_r)
    assert shape.size == SHAPES.size
    flat = random_adapters()
    lora = Lora.unflatten(flat[None], shape, torch.ones(1))
    named = named_matrices(flat, SHAPES)
    for block in range(CONFIG.depth):
        for layer, adapter in zip(("fc1", "fc2"), lora.layers(block), strict=True):
            assert torch.equal(adapter.a[0], named[f"blocks.{block}.ffn.{layer}.lora_A"])
            assert torch.equal(adapter.b[0], named[f"blocks.{block}.ffn.{layer}.lora_B"])


def write(folder, flat):
    save_file(peft_tensors(flat, SHAPES), folder / ADAPTER_FILE)
    (folder / CONFIG_FILE).write_text(peft_config(LORA))


class Host(nn.Module):
    """What peft wants to see: a module with a configuration."""

    def __init__(self, transformer):
        super().__init__()
        self.blocks = transformer.blocks
        self.transformer = [transformer]  # hidden from peft's search

    def forward(self, text, inputs):
        model = self.transformer[0]
        return model(model.condition(text), inputs, SCHEDULE)[0]


def test_peft_loads_them_and_computes_the_same(tmp_path):
    flat = random_adapters()
    write(tmp_path, flat)
    features = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    inputs = teacher_inputs(quantise(features, SCHEDULE), SCHEDULE)
    text = text_rows()[None]
    adapters = adapters_of(flat, LORA)
    shape = LoraShape(CONFIG.depth, CONFIG.width, CONFIG.hidden, adapters.rank)
    lora = Lora.unflatten(flat[None], shape, torch.tensor([adapters.scale]))
    model = tiny_transformer()
    with torch.no_grad():
        expected, _ = model(model.condition(text), inputs, SCHEDULE, PassOptions(lora=lora))
        plain, _ = model(model.condition(text), inputs, SCHEDULE)
        theirs = PeftModel.from_pretrained(Host(model), tmp_path).eval()(text, inputs)
    assert not torch.allclose(plain, expected, atol=1e-3)
    torch.testing.assert_close(theirs, expected, rtol=1e-4, atol=1e-5)  # other order of sums


def test_files_come_back_as_the_same_adapters(tmp_path):
    flat = random_adapters()
    write(tmp_path, flat)
    tensors = load_file(tmp_path / ADAPTER_FILE)
    assert torch.equal(from_peft_tensors(tensors, SHAPES), flat)
    assert json.loads((tmp_path / CONFIG_FILE).read_text())["r"] == 3


def test_adapters_of_another_model_are_refused():
    tensors = peft_tensors(random_adapters(), SHAPES)
    with pytest.raises(CorruptArtifactError, match=r"has shape \(3, 16\), expected \(2, 16\)"):
        from_peft_tensors(tensors, LoraShapes.of(SPEC, 2))
    tensors.pop("base_model.model.blocks.1.ffn.fc2.lora_B.weight")
    with pytest.raises(CorruptArtifactError, match=r"blocks\.1\.ffn\.fc2\.lora_B is missing"):
        from_peft_tensors(tensors, SHAPES)
