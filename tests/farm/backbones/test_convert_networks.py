"""Authors' own files become folders that load as the hub's do."""

import json

import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import CLIPModel

from benchmarks.gpu.small import SMALL
from benchmarks.gpu.weights import random_state, write_network
from farm.backbones.convert import read_pth
from farm.backbones.convert_networks import convert_network, network_kind
from farm.backbones.dino import build_official_dino, load_dino
from farm.backbones.infinity.networks import load_text_encoder
from farm.errors import InvalidRequestError, ModelSetError
from tests.tiny import _seeded as seeded
from tests.tiny import tiny_clip

WIDE = {"img_size": 16, "patch_size": 4, "embed_dim": 128, "depth": 2, "num_heads": 2}
_PLACES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def released_dino(path):
    vit = seeded(lambda: VisionTransformer(**WIDE, num_classes=0), 1)
    torch.save({"teacher": {f"backbone.{n}": t for n, t in vit.state_dict().items()}}, path)


def openai_state(clip):
    """OpenAI's names for a CLIP of transformers, written from their list of keys."""
    state = clip.state_dict()
    found = {
        "logit_scale": state["logit_scale"],
        "text_projection": state["text_projection.weight"].T.contiguous(),
        "visual.proj": state["visual_projection.weight"].T.contiguous(),
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        found[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        found[f"visual.ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
        for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
            layer = f"{tower}.encoder.layers.0"
            block = f"{prefix}transformer.resblocks.0"
            for own, theirs in _PLACES.items():
                found[f"{block}.{theirs}.{kind}"] = state[f"{layer}.{own}.{kind}"]
            parts = [state[f"{layer}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            found[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
    return found


class Scripted(nn.Module):
    """A module with these tensors under these dotted names."""

    def __init__(self, state):
        super().__init__()
        for name, tensor in state.items():
            *path, last = name.split(".")
            owner = self
            for part in path:
                if part not in dict(owner.named_children()):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.register_buffer(last, tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_dino_keeps_its_numbers_and_how_its_authors_resize(tmp_path):
    released_dino(tmp_path / "dino.pth")
    assert network_kind(tmp_path / "dino.pth") == "dino"
    done = convert_network(tmp_path / "dino.pth", tmp_path / "dino")
    expected = build_official_dino(read_pth(tmp_path / "dino.pth"))
    found = load_dino(tmp_path / "dino")
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found(image).tokens, expected(image).tokens)
    assert found.position_offset == 0.1
    assert done.numbers == sum(p.numel() for p in found.parameters())


@pytest.mark.parametrize("form", ["scripted", "pickled", "hub"])
def test_clip_in_any_of_its_published_forms(tmp_path, form):
    clip = tiny_clip().eval()
    source = tmp_path / "ViT-B-16.pt"
    if form == "scripted":  # OpenAI's own file, with its notes of sizes
        notes = {"input_resolution": torch.tensor(16), "context_length": torch.tensor(8)}
        notes["vocab_size"] = torch.tensor(29)
        torch.jit.script(Scripted(openai_state(clip) | notes)).save(str(source))
    elif form == "pickled":
        torch.save(openai_state(clip), source)
    else:
        source = tmp_path / "hub"
        source.mkdir()
        torch.save(clip.state_dict(), source / "pytorch_model.bin")
    assert network_kind(source) == "clip"
    convert_network(source, tmp_path / "clip")
    found = load_file(tmp_path / "clip" / "model.safetensors")
    expected = clip.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    config = json.loads((tmp_path / "clip" / "config.json").read_text())
    assert config["vision_config"]["image_size"] == 16
    CLIPModel.from_pretrained(tmp_path / "clip", local_files_only=True)


def test_of_t5_the_encoder_is_kept_in_half_precision(tmp_path):
    write_network("t5", SMALL["flan-t5-xl-encoder"], tmp_path / "whole", "full")
    done = convert_network(tmp_path / "whole", tmp_path / "t5")
    state = load_file(tmp_path / "t5" / "model.safetensors")
    assert not any(name.startswith("decoder.") for name in state)
    assert all(tensor.dtype == torch.bfloat16 for tensor in state.values())
    encoder = load_text_encoder(tmp_path / "t5").encoder
    tied = encoder.shared.weight.numel()
    assert done.numbers == sum(t.numel() for t in encoder.state_dict().values()) - tied
    expected = random_state(SMALL["flan-t5-xl-encoder"], torch.float32)
    for name, tensor in encoder.state_dict().items():
        if name != "encoder.embed_tokens.weight":
            assert torch.equal(tensor, expected[name].bfloat16().float()), name


def test_what_is_there_is_not_overwritten(tmp_path):
    released_dino(tmp_path / "dino.pth")
    convert_network(tmp_path / "dino.pth", tmp_path / "dino")
    with pytest.raises(InvalidRequestError, match="holds safetensors already"):
        convert_network(tmp_path / "dino.pth", tmp_path / "dino")


def test_an_incomplete_or_unknown_file_is_refused_and_nothing_written(tmp_path):
    state = tiny_clip().state_dict()
    del state["text_model.final_layer_norm.bias"]
    torch.save(state, tmp_path / "clip.pth")
    with pytest.raises(ModelSetError, match=r"the first is text_model\.final_layer_norm\.bias"):
        convert_network(tmp_path / "clip.pth", tmp_path / "clip")
    torch.save({"x": torch.ones(1)}, tmp_path / "x.pth")
    assert network_kind(tmp_path / "x.pth") is None
    with pytest.raises(ModelSetError, match="no DINO, CLIP or T5"):
        convert_network(tmp_path / "x.pth", tmp_path / "x")
    assert not (tmp_path / "clip").exists()
