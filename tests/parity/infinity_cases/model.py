"""Schedules, autoencoder, quantiser, transformer, generation."""

import numpy as np
import pytest
import torch

from farm.backbones.infinity.loss import bit_loss
from farm.backbones.infinity.packing import pack_bits, unpack_bits
from farm.backbones.infinity.quantiser import (
    quantise,
    teacher_inputs,
    teacher_targets,
    to_cells,
)
from farm.backbones.infinity.rope import rope_table
from farm.backbones.infinity.sampling import KeyedNoise, draw, probabilities
from farm.backbones.infinity.schedules import RATIOS, SIZES, table_schedule
from tests.parity.infinity_cases.common import (
    AR_RUNS,
    CODES,
    DECODER,
    ENCODER,
    LOGITS,
    LOSS,
    ROPE,
    SAMPLERS,
    as_bgr,
    assert_close,
    assert_nearly_equal_bytes,
    assert_same_bits,
    generated,
    mean_pool,
)


def test_the_set_says_the_schedules_that_our_tables_have(folder):
    config, schedule = folder.config, folder.schedule()
    assert [[1, *grid] for grid in schedule.grids] == config["scale_schedule"]
    assert [[1, *grid] for grid in schedule.latent_grids] == config["vae_scale_schedule"]
    assert list(schedule.image_size) == config["image_hw"]


def test_sizes_are_read_off_the_state_dicts(folder):
    config, sizes, vae = folder.config, folder.transformer.config, folder.vae.config
    assert sizes.width == config["embed_dim"]
    assert sizes.depth == config["depth"]
    assert sizes.heads == config["num_heads"]
    assert sizes.head_dim == config["head_dim"]
    assert sizes.hidden == config["ffn_hidden"]
    assert sizes.text_width == config["Ct5"]
    assert sizes.text_rows == config["text_maxlen"]
    assert vae.bits == config["vae_dim"]
    assert vae.base == config["ch"]
    assert list(vae.multipliers) == config["ch_mult"]
    assert vae.stride == config["patch_size"]
    assert vae.encoder_blocks == config["num_res_blocks"]
    assert vae.decoder_blocks == config["num_res_blocks"] + 1
    assert [len(text) for text in folder.text] == config["lens"]


def test_positions_of_the_folder(folder):
    table = rope_table(folder.schedule(), folder.transformer.config.head_dim)
    assert_close(table, folder.core["rope_cos_sin"], ROPE)


def test_positions_of_other_ratios(table):
    """Rounding is half to even: at 1.25 some coordinates lie at a half."""
    grids = [tuple(scale[1:]) for scale in table["scales"].tolist()]
    pairs = table["cos"].shape[1]
    ratio = table.path.stem.split("_")[1].removeprefix("ratio")
    size = next(
        s
        for s in SIZES
        if table_schedule(f"{float(ratio):.3f}", s, cell=1, stride=16).num_scales == len(grids)
    )
    schedule = table_schedule(f"{float(ratio):.3f}", size, cell=1, stride=16)
    assert list(schedule.grids) == grids
    found = rope_table(schedule, 2 * pairs)
    assert_close(found[0], table["cos"], ROPE)
    assert_close(found[1], table["sin"], ROPE)
    whole = sum(h * w for h, w in RATIOS[f"{float(ratio):.3f}"])
    assert table["full_padded_len"].item() == -(-whole // 128) * 128


def test_encoder_and_bits(folder):
    assert_close(folder.features, folder.core["vae_h"], ENCODER)
    for scale, bits in enumerate(folder.quantised.bits):
        expected = folder.core[f"vae_bits_{scale}"].bool()
        assert_same_bits(bits.permute(0, 2, 3, 1), expected)
    assert_close(folder.quantised.codes, folder.core["vae_z"], CODES)


def test_decoder(folder):
    with torch.no_grad():
        decoded = folder.vae.decode(folder.stored.codes) * 2 - 1
    crop = folder.core["vae_rec_crop"]
    assert_close(decoded[..., : crop.shape[2], : crop.shape[3]], crop, DECODER)
    assert_close(mean_pool(decoded, 8), folder.core["vae_rec_mean8"], DECODER)


def test_inputs_and_targets_of_teacher_forcing(folder):
    schedule = folder.schedule()
    assert_close(teacher_inputs(folder.stored, schedule), folder.core["tf_x"], CODES)
    targets = teacher_targets(folder.stored, schedule).split(schedule.lengths, dim=1)
    for scale, bits in enumerate(targets):
        assert_same_bits(bits, folder.core[f"tf_gt_{scale}"].bool())


def test_self_correction(folder):
    """Flipped bits go into the history, and the targets repair what they did."""
    schedule, channels = folder.schedule(), folder.vae.config.bits
    flips = []
    for scale, (height, width) in enumerate(schedule.latent_grids):
        flip = folder.core.unpacked(f"bsc_flip_{scale}", (2, height, width, channels))
        flips.append(flip.permute(0, 3, 1, 2))
    noisy = quantise(folder.features, schedule, flips)
    assert_close(teacher_inputs(noisy, schedule), folder.core["bsc_x"], CODES)
    targets = teacher_targets(noisy, schedule).split(schedule.lengths, dim=1)
    for scale, bits in enumerate(targets):
        assert_same_bits(bits, folder.core.unpacked(f"bsc_gt_{scale}", tuple(bits.shape)))


def test_flips_have_the_strength_that_was_drawn(folder):
    """Our rates come from the same steps: 0, 0.01, … 0.30."""
    strengths = folder.core["bsc_strength"]
    assert ((strengths * 100).round() / 100 - strengths).abs().max() < 1e-9
    assert strengths.min() >= 0
    assert strengths.max() <= 0.3
    for scale, strength in enumerate(strengths.tolist()):
        bits = 2 * np.prod(folder.schedule().latent_grids[scale]) * folder.vae.config.bits
        share = folder.core.unpacked(f"bsc_flip_{scale}", (bits,)).float().mean().item()
        # five standard deviations of a mean of so many draws
        assert share == pytest.approx(strength, abs=5 * (0.25 / bits) ** 0.5)


def test_packing_is_numpys(folder):
    packed = pack_bits(folder.stored.bits)
    flat = [b.permute(0, 2, 3, 1).flatten(1).numpy() for b in folder.stored.bits]
    assert np.array_equal(packed.numpy(), np.packbits(np.concatenate(flat, 1), axis=1))
    back = unpack_bits(packed, folder.schedule(), folder.vae.config.bits)
    assert all(torch.equal(a, b) for a, b in zip(back, folder.stored.bits, strict=True))


def test_cells_and_tokens_are_inverse(folder):
    """`to_cells` of the targets gives the bits back, patches included."""
    schedule = folder.schedule()
    targets = teacher_targets(folder.stored, schedule).split(schedule.lengths, dim=1)
    for tokens, grid, bits in zip(targets, schedule.grids, folder.stored.bits, strict=True):
        assert torch.equal(to_cells(tokens, grid, schedule.cell), bits)


def test_text_conditioning(folder):
    normed, pooled, modulation, context = [], [], [], []
    model = folder.transformer
    for text in folder.text:
        with torch.no_grad():
            given = model.condition(text[None])
            rows = model.text_norm(text[None])
            context.append(model.text_proj_for_ca(rows)[0])
        normed.append(rows[0])
        pooled.append(given.pooled)
        modulation.append(given.modulation)
    assert_close(torch.cat(normed), folder.core["text_normed"], LOGITS)
    assert_close(torch.cat(pooled), folder.core["sos_cond"], LOGITS)
    assert_close(torch.cat(context), folder.core["ca_kv"], LOGITS)
    assert_close(torch.cat(modulation)[:, None], folder.core["adaln_gss"], LOGITS)


def test_teacher_forced_logits_and_losses(folder):
    schedule = folder.schedule()
    inputs = teacher_inputs(folder.stored, schedule)
    logits = []
    for sample, text in enumerate(folder.text):
        with torch.no_grad():
            given = folder.transformer.condition(text[None])
            one, _ = folder.transformer(given, inputs[sample : sample + 1], schedule)
        logits.append(one)
    logits = torch.cat(logits)
    assert_close(logits, folder.core["tf_logits"], LOGITS)
    # README: rounding of cross-attention alone moves the reference by about 0.03 to 0.06
    assert_close(logits, folder.core["tf_logits_ca_bf16"], 0.1)
    loss = bit_loss(logits, teacher_targets(folder.stored, schedule), schedule)
    expected = folder.core["tf_loss_scale_weighted"].item()
    assert loss.weighted.mean().item() == pytest.approx(expected, abs=LOSS)
    expected = folder.core["tf_loss_plain_mean"].item()
    assert loss.plain.mean().item() == pytest.approx(expected, abs=LOSS)
    assert_close(loss.by_scale.mean(0).double(), folder.core["tf_loss_per_scale"], 1e-5)
    expected = folder.core["tf_kl_batchmean"].item()
    assert loss.divergence.mean().item() == pytest.approx(expected, rel=LOSS)


def test_texts_of_different_length_in_one_batch(folder):
    """Filled up with rows that do not count, the two samples are what they are alone."""
    schedule = folder.schedule()
    most = max(len(text) for text in folder.text)
    filled = torch.stack(
        [torch.nn.functional.pad(t, (0, 0, 0, most - len(t)), value=9.0) for t in folder.text]
    )
    present = torch.stack([torch.arange(most) < len(text) for text in folder.text])
    with torch.no_grad():
        given = folder.transformer.condition(filled, present)
        inputs = teacher_inputs(folder.stored, schedule)
        logits, _ = folder.transformer(given, inputs, schedule)
    assert_close(logits, folder.core["tf_logits"], LOGITS)


@pytest.mark.parametrize("tag", AR_RUNS)
def test_greedy_generation(folder, tag):
    strength, temperature, insertion = AR_RUNS[tag]
    schedule, core, text = folder.schedule(), folder.core, folder.text[0]
    steps = generated(folder, text, strength, temperature, insertion)
    bits = torch.cat([step.bits for step in steps], dim=1)[0]
    assert_same_bits(bits, core[f"ar_{tag}_bits"].bool())
    if f"ar_{tag}_logits" in core.names:
        logits = torch.cat([step.logits for step in steps], dim=1)[0]
        # guidance 3 at temperature 0.5 multiplies errors of single logits by up to 10
        tolerance = LOGITS * (2 * strength - 1) / temperature
        assert_close(logits, core[f"ar_{tag}_logits"], tolerance)
    assert_close(steps[-1].codes, core[f"ar_{tag}_codes"], CODES)
    with torch.no_grad():
        image = folder.vae.decode(steps[-1].codes)
    expected = core[f"ar_{tag}_img_crop"]
    height, width = expected.shape[:2]
    assert_nearly_equal_bytes(as_bgr(image)[0, :height, :width], expected)
    means = mean_pool(as_bgr(image).permute(0, 3, 1, 2).float(), 8)
    # means over 64 pixels of truncated values: a level in a few of them at most
    assert_close(means, core[f"ar_{tag}_img_mean8"], 0.1)
    assert schedule.num_tokens == len(bits)


@pytest.mark.parametrize("tag", SAMPLERS)
def test_sampler(folder, tag):
    logits = folder.core["samp_logits"]
    chances = probabilities(logits, SAMPLERS[tag])
    assert_close(chances, folder.core[f"samp_{tag}_probs"], 1e-6)
    noise = KeyedNoise([9]).draw(logits.shape[1], logits.device)  # README: seed 9
    drawn = draw(chances, noise)[0]
    assert_same_bits(drawn, folder.core[f"samp_{tag}_idx"].bool())
    picks = torch.multinomial(
        chances[0], 1, replacement=True, generator=torch.Generator().manual_seed(9)
    )
    assert_same_bits(drawn, picks[:, 0] == 1)
