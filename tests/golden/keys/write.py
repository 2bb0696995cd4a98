"""Write the lists of keys and shapes of the released networks, from their descriptions alone.

    python tests/golden/keys/write.py

No library of models is imported: every name and shape follows from the papers' sizes, the specs'
lists of keys, and the naming of the published files. The tests hold the libraries' classes and ours
against these lists, and the lists against published numbers of parameters.
"""

import json
import math
from pathlib import Path

Shapes = dict[str, list[int]]


def linear(name: str, out: int, inner: int, *, bias: bool = True) -> Shapes:
    found = {f"{name}.weight": [out, inner]}
    return found | ({f"{name}.bias": [out]} if bias else {})


def conv(name: str, out: int, inner: int, size: int) -> Shapes:
    return {f"{name}.weight": [out, inner, size, size], f"{name}.bias": [out]}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": [width], f"{name}.bias": [width]}


# diffusers


def resnet(name: str, inner: int, out: int, time: int | None) -> Shapes:
    found = norm(f"{name}.norm1", inner) | conv(f"{name}.conv1", out, inner, 3)
    if time:
        found |= linear(f"{name}.time_emb_proj", out, time)
    found |= norm(f"{name}.norm2", out) | conv(f"{name}.conv2", out, out, 3)
    return found | (conv(f"{name}.conv_shortcut", out, inner, 1) if inner != out else {})


def transformer(name: str, width: int, text: int, *, linear_in: bool) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    found = norm(f"{name}.norm", width)
    for end in ("proj_in", "proj_out"):
        place = f"{name}.{end}"
        found |= linear(place, width, width) if linear_in else conv(place, width, width, 1)
    for number, context in ((1, width), (2, text)):
        attention = f"{block}.attn{number}"
        found |= linear(f"{attention}.to_q", width, width, bias=False)
        found |= linear(f"{attention}.to_k", width, context, bias=False)
        found |= linear(f"{attention}.to_v", width, context, bias=False)
        found |= linear(f"{attention}.to_out.0", width, width)
    found |= linear(f"{block}.ff.net.0.proj", 8 * width, width)  # gated
    found |= linear(f"{block}.ff.net.2", width, 4 * width)
    for number in (1, 2, 3):
        found |= norm(f"{block}.norm{number}", width)
    return found


def unet(channels: int, text: int, *, linear_in: bool = False) -> Shapes:
    """Two blocks a level going down, three going up; attention at all levels but the coarsest."""
    widths, time = (320, 640, 1280, 1280), 1280
    found = conv("conv_in", 320, channels, 3)
    found |= linear("time_embedding.linear_1", time, 320)
    found |= linear("time_embedding.linear_2", time, time)
    skips, inner = [320], 320
    for level, width in enumerate(widths):
        block = f"down_blocks.{level}"
        for number in range(2):
            found |= resnet(f"{block}.resnets.{number}", inner, width, time)
            inner = width
            if level < 3:
                place = f"{block}.attentions.{number}"
                found |= transformer(place, width, text, linear_in=linear_in)
            skips.append(width)
        if level < 3:
            found |= conv(f"{block}.downsamplers.0.conv", width, width, 3)
            skips.append(width)
    for number in range(2):
        found |= resnet(f"mid_block.resnets.{number}", 1280, 1280, time)
    found |= transformer("mid_block.attentions.0", 1280, text, linear_in=linear_in)
    for level, width in enumerate(reversed(widths)):
        block = f"up_blocks.{level}"
        for number in range(3):
            found |= resnet(f"{block}.resnets.{number}", inner + skips.pop(), width, time)
            inner = width
            if level > 0:
                place = f"{block}.attentions.{number}"
                found |= transformer(place, width, text, linear_in=linear_in)
        if level < 3:
            found |= conv(f"{block}.upsamplers.0.conv", width, width, 3)
    return found | norm("conv_norm_out", 320) | conv("conv_out", 4, 320, 3)


def vae_middle(name: str) -> Shapes:
    found: Shapes = {}
    for number in range(2):
        found |= resnet(f"{name}.mid_block.resnets.{number}", 512, 512, None)
    attention = f"{name}.mid_block.attentions.0"
    found |= norm(f"{attention}.group_norm", 512)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        found |= linear(f"{attention}.{part}", 512, 512)
    return found


def vae() -> Shapes:
    widths = (128, 256, 512, 512)
    found = conv("encoder.conv_in", 128, 3, 3) | conv("decoder.conv_in", 512, 4, 3)
    inner = 128
    for level, width in enumerate(widths):
        for number in range(2):
            place = f"encoder.down_blocks.{level}.resnets.{number}"
            found |= resnet(place, inner, width, None)
            inner = width
        if level < 3:
            place = f"encoder.down_blocks.{level}.downsamplers.0.conv"
            found |= conv(place, width, width, 3)
    for level, width in enumerate(reversed(widths)):
        for number in range(3):
            place = f"decoder.up_blocks.{level}.resnets.{number}"
            found |= resnet(place, inner, width, None)
            inner = width
        if level < 3:
            found |= conv(f"decoder.up_blocks.{level}.upsamplers.0.conv", width, width, 3)
    found |= vae_middle("encoder") | vae_middle("decoder")
    found |= norm("encoder.conv_norm_out", 512) | conv("encoder.conv_out", 8, 512, 3)
    found |= norm("decoder.conv_norm_out", 128) | conv("decoder.conv_out", 3, 128, 3)
    return found | conv("quant_conv", 8, 8, 1) | conv("post_quant_conv", 4, 4, 1)


# CLIP, as the hub has it


def clip_layers(prefix: str, width: int, depth: int) -> Shapes:
    found: Shapes = {}
    for number in range(depth):
        layer = f"{prefix}encoder.layers.{number}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            found |= linear(f"{layer}.self_attn.{part}", width, width)
        found |= norm(f"{layer}.layer_norm1", width) | norm(f"{layer}.layer_norm2", width)
        found |= linear(f"{layer}.mlp.fc1", 4 * width, width)
        found |= linear(f"{layer}.mlp.fc2", width, 4 * width)
    return found


def clip_text(prefix: str, width: int, depth: int) -> Shapes:
    found = {f"{prefix}embeddings.token_embedding.weight": [49408, width]}
    found |= {f"{prefix}embeddings.position_embedding.weight": [77, width]}
    return found | clip_layers(prefix, width, depth) | norm(f"{prefix}final_layer_norm", width)


def clip_vision(prefix: str, width: int, depth: int, patch: int) -> Shapes:
    places = (224 // patch) ** 2 + 1
    found = {f"{prefix}embeddings.class_embedding": [width]}
    found |= {f"{prefix}embeddings.patch_embedding.weight": [width, 3, patch, patch]}
    found |= {f"{prefix}embeddings.position_embedding.weight": [places, width]}
    found |= norm(f"{prefix}pre_layrnorm", width) | norm(f"{prefix}post_layernorm", width)
    return found | clip_layers(prefix, width, depth)


def clip(text: tuple[int, int], vision: tuple[int, int, int], shared: int) -> Shapes:
    found: Shapes = {"logit_scale": []}
    found |= clip_text("text_model.", *text) | clip_vision("vision_model.", *vision)
    found |= linear("visual_projection", shared, vision[0], bias=False)
    return found | linear("text_projection", shared, text[0], bias=False)


def safety() -> Shapes:
    found = {"concept_embeds": [17, 768], "concept_embeds_weights": [17]}
    found |= {"special_care_embeds": [3, 768], "special_care_embeds_weights": [3]}
    found |= clip_vision("vision_model.", 1024, 24, 14)
    return found | linear("visual_projection", 768, 1024, bias=False)


# DINO (arXiv:2104.14294), whose own names timm kept


def dino(patch: int) -> Shapes:
    places = (224 // patch) ** 2 + 1
    found: Shapes = {"cls_token": [1, 1, 768], "pos_embed": [1, places, 768]}
    found |= conv("patch_embed.proj", 768, 3, patch)
    for number in range(12):
        block = f"blocks.{number}"
        found |= norm(f"{block}.norm1", 768) | norm(f"{block}.norm2", 768)
        found |= linear(f"{block}.attn.qkv", 2304, 768) | linear(f"{block}.attn.proj", 768, 768)
        found |= linear(f"{block}.mlp.fc1", 3072, 768) | linear(f"{block}.mlp.fc2", 768, 3072)
    return found | norm("norm", 768)


# T5 1.1 (gated), the encoder of flan-t5-xl


def t5() -> Shapes:
    width, inner, hidden, depth, heads = 2048, 2048, 5120, 24, 32
    found: Shapes = {"shared.weight": [32128, width]}
    found |= {"encoder.embed_tokens.weight": [32128, width]}  # the same table
    for number in range(depth):
        attention = f"encoder.block.{number}.layer.0.SelfAttention"
        feed = f"encoder.block.{number}.layer.1.DenseReluDense"
        for part in ("q", "k", "v"):
            found |= linear(f"{attention}.{part}", inner, width, bias=False)
        found |= linear(f"{attention}.o", width, inner, bias=False)
        if number == 0:
            found |= {f"{attention}.relative_attention_bias.weight": [32, heads]}
        found |= linear(f"{feed}.wi_0", hidden, width, bias=False)
        found |= linear(f"{feed}.wi_1", hidden, width, bias=False)
        found |= linear(f"{feed}.wo", width, hidden, bias=False)
        for layer in (0, 1):
            found |= {f"encoder.block.{number}.layer.{layer}.layer_norm.weight": [width]}
    return found | {"encoder.final_layer_norm.weight": [width]}


# Infinity and its autoencoders (specs/edit_infinity.md, §2.1 and §3.1)


def infinity(width: int, depth: int, heads: int, bits: int, chunks: int) -> Shapes:
    """As released: blocks in chunks, buffers of zeros among the weights."""
    text, hidden = 2048, round(4 * width / 256) * 256
    pool = "text_proj_for_sos.ca"
    found: Shapes = {
        "cfg_uncond": [512, text],
        "pos_start": [1, 1, width],
        "text_norm.weight": [text],
        f"{pool}.mat_q": [1, text // 128, width // (text // 128)],
        f"{pool}.v_bias": [width],
        f"{pool}.zero_k_bias": [width],
        "lvl_embed.weight": [15, width],
    }
    found |= linear(f"{pool}.mat_kv", 2 * width, text, bias=False)
    found |= linear(f"{pool}.proj", width, width)
    found |= linear("text_proj_for_ca.0", width, text) | linear("text_proj_for_ca.2", width, width)
    found |= linear("word_embed", width, bits) | linear("shared_ada_lin.1", 6 * width, width)
    found |= linear("head_nm.ada_lin.1", 2 * width, width) | linear("head", 2 * bits, width)
    per_chunk = depth // chunks
    for number in range(depth):
        block = f"block_chunks.{number // per_chunk}.module.{number % per_chunk}"
        found |= {
            f"{block}.ada_gss": [1, 1, 6, width],
            f"{block}.sa.scale_mul_1H11": [1, heads, 1, 1],
            f"{block}.sa.q_bias": [width],
            f"{block}.sa.v_bias": [width],
            f"{block}.sa.zero_k_bias": [width],
            f"{block}.ca.v_bias": [width],
            f"{block}.ca.zero_k_bias": [width],
        }
        found |= linear(f"{block}.sa.mat_qkv", 3 * width, width, bias=False)
        found |= linear(f"{block}.sa.proj", width, width)
        found |= linear(f"{block}.ca.mat_q", width, width)
        found |= linear(f"{block}.ca.mat_kv", 2 * width, width, bias=False)
        found |= linear(f"{block}.ca.proj", width, width)
        found |= linear(f"{block}.ffn.fc1", hidden, width)
        found |= linear(f"{block}.ffn.fc2", width, hidden)
        found |= norm(f"{block}.ca_norm", width)
    return found


def bsq_block(name: str, inner: int, out: int) -> Shapes:
    found = norm(f"{name}.norm1.norm", inner) | conv(f"{name}.conv1.conv", out, inner, 3)
    found |= norm(f"{name}.norm2.norm", out) | conv(f"{name}.conv2.conv", out, out, 3)
    return found | (conv(f"{name}.nin_shortcut.conv", out, inner, 1) if inner != out else {})


def bsq(bits: int, multipliers: tuple[int, ...]) -> Shapes:
    """As released, the table of bit values under its two names included."""
    widths = [128 * m for m in multipliers]
    last = len(widths) - 1
    found: Shapes = {"quantizer.lfq.mask": [bits], "quantize.lfq.mask": [bits]}
    found |= conv("encoder.conv_in.conv", 128, 3, 3)
    inner = 128
    for level, width in enumerate(widths):
        for number in range(2):
            found |= bsq_block(f"encoder.down.{level}.block.{number}", inner, width)
            inner = width
        if level < last:
            found |= conv(f"encoder.down.{level}.downsample.conv.conv", width, width, 3)
    for side in ("encoder", "decoder"):
        for number in (1, 2):
            found |= bsq_block(f"{side}.mid.block_{number}", widths[-1], widths[-1])
    found |= norm("encoder.norm_out.norm", widths[-1])
    found |= conv("encoder.conv_out.conv", bits, widths[-1], 3)
    found |= conv("decoder.conv_in.conv", widths[-1], bits, 3)
    inner = widths[-1]
    for level in reversed(range(len(widths))):
        for number in range(3):
            found |= bsq_block(f"decoder.up.{level}.block.{number}", inner, widths[level])
            inner = widths[level]
        if level > 0:
            found |= conv(f"decoder.up.{level}.upsample.conv.conv", inner, inner, 3)
    return found | norm("decoder.norm_out.norm", 128) | conv("decoder.conv_out.conv", 3, 128, 3)


def all_lists() -> dict[str, Shapes]:
    deep, flat = (1, 2, 4, 4, 4), (1, 2, 4, 4)
    small = (512, 12)
    return {
        "sd1-unet": unet(4, 768),
        "sd1-inpainting-unet": unet(9, 768),
        "sd2-unet": unet(4, 1024, linear_in=True),
        "sd2-inpainting-unet": unet(9, 1024, linear_in=True),
        "sd-vae": vae(),
        "sd1-text": clip_text("", 768, 12),
        "sd2-text": clip_text("", 1024, 23),
        "sd-safety": safety(),
        "clip-b32": clip(small, (768, 12, 32), 512),
        "clip-b16": clip(small, (768, 12, 16), 512),
        "clip-l14": clip((768, 12), (1024, 24, 14), 768),
        "clip-b16-vision": clip_vision("", 768, 12, 16),
        "clip-l14-vision": clip_vision("", 1024, 24, 14),
        "dino-b8": dino(8),
        "dino-b16": dino(16),
        "flan-t5-xl-encoder": t5(),
        "infinity-125m": infinity(768, 12, 8, 16, 4),
        "infinity-2b": infinity(2048, 32, 16, 32, 8),
        "infinity-8b": infinity(3584, 40, 28, 56, 8),
        **{f"bsq-d{bits}": bsq(bits, deep) for bits in (16, 24, 32, 64)},
        "bsq-d14-f8": bsq(14, flat),
    }


def main() -> None:
    folder = Path(__file__).parent
    for name, shapes in all_lists().items():
        numbers = sum(math.prod(shape) for shape in shapes.values())
        lines = ",\n".join(f"  {json.dumps(key)}: {shapes[key]}" for key in sorted(shapes))
        head = f'{{\n "keys": {len(shapes)},\n "numbers": {numbers},\n "shapes": {{\n'
        (folder / f"{name}.json").write_text(f"{head}{lines}\n }}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
