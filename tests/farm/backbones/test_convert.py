import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from farm.backbones.convert import openai_clip_state, read_pth
from farm.errors import ModelSetError

WEIGHTS = {"a.weight": torch.arange(4.0), "b": torch.ones(2, 2)}


class Harmful:
    def __reduce__(self):
        return (print, ("code in a checkpoint ran",))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w},
        lambda w: {"student": {}, "teacher": {f"module.backbone.{n}": t for n, t in w.items()}},
    ],
    ids=["plain", "state_dict", "teacher"],
)
def test_backbones_are_unwrapped(tmp_path, wrap):
    path = tmp_path / "dino.pth"
    torch.save(wrap(WEIGHTS), path)
    found = read_pth(path)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[n], t) for n, t in WEIGHTS.items())


@pytest.mark.parametrize("content", [{"a": 1}, [torch.ones(1)], {"a": Harmful()}])
def test_files_that_hold_more_than_tensors_are_refused(tmp_path, capsys, content):
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(ModelSetError, match=str(path)):
        read_pth(path)
    assert "ran" not in capsys.readouterr().out


def test_missing_and_broken_files_are_named(tmp_path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no checkpoint")
    for path in (broken, tmp_path / "missing.pth"):
        with pytest.raises(ModelSetError, match=f"{path.name} cannot be read"):
            read_pth(path)


def openai_state(layers):
    """Names and shapes of a small OpenAI CLIP (widths 8 and 12, embedding 4)."""
    shapes = {
        "logit_scale": (),
        "token_embedding.weight": (9, 8),
        "positional_embedding": (5, 8),
        "ln_final.weight": (8,),
        "ln_final.bias": (8,),
        "text_projection": (8, 4),
        "visual.class_embedding": (12,),
        "visual.conv1.weight": (12, 3, 2, 2),
        "visual.positional_embedding": (5, 12),
        "visual.ln_pre.weight": (12,),
        "visual.ln_pre.bias": (12,),
        "visual.ln_post.weight": (12,),
        "visual.ln_post.bias": (12,),
        "visual.proj": (12, 4),
    }
    for prefix, width in (("transformer", 8), ("visual.transformer", 12)):
        for layer in range(layers):
            block = f"{prefix}.resblocks.{layer}"
            shapes |= {
                f"{block}.attn.in_proj_weight": (3 * width, width),
                f"{block}.attn.in_proj_bias": (3 * width,),
                f"{block}.attn.out_proj.weight": (width, width),
                f"{block}.attn.out_proj.bias": (width,),
                f"{block}.ln_1.weight": (width,),
                f"{block}.ln_1.bias": (width,),
                f"{block}.ln_2.weight": (width,),
                f"{block}.ln_2.bias": (width,),
                f"{block}.mlp.c_fc.weight": (4 * width, width),
                f"{block}.mlp.c_fc.bias": (4 * width,),
                f"{block}.mlp.c_proj.weight": (width, 4 * width),
                f"{block}.mlp.c_proj.bias": (width,),
            }
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_openai_s_clip_has_every_name_and_shape_of_transformers():
    """Values are compared end to end by tests/parity/test_learnable_regions.py."""
    shared = {"num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 8, "intermediate_size": 32, "vocab_size": 9}
    text |= {"max_position_embeddings": 5, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"hidden_size": 12, "intermediate_size": 48, "image_size": 4, "patch_size": 2}
    config = CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=4)
    expected = {n: t.shape for n, t in CLIPModel(config).state_dict().items()}
    found = openai_clip_state(openai_state(layers=2))
    assert {n: t.shape for n, t in found.items()} == expected


def test_projections_are_transposed_and_attention_is_split():
    state = openai_state(layers=1)
    found = openai_clip_state(state)
    assert torch.equal(found["visual_projection.weight"], state["visual.proj"].T)
    layer = "text_model.encoder.layers.0.self_attn"
    pieces = [found[f"{layer}.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(torch.cat(pieces), state["transformer.resblocks.0.attn.in_proj_weight"])


@pytest.mark.parametrize(
    "name", ["visual.trunk.weight", "transformer.resblocks.0.attn.q.weight", "encoder.conv.weight"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ModelSetError, match=f"'{name}' is no weight of OpenAI's CLIP"):
        openai_clip_state({name: torch.ones(1)})
