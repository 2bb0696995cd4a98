"""Prompt, adapters, attention, masks and weights."""

import pytest
import torch

from farm.backbones.infinity.generation import Keep
from farm.backbones.infinity.lora import Lora, LoraShape
from farm.backbones.infinity.packing import pack_bits
from farm.methods.edit_infinity.client import (
    Adapters,
    TrainingQuery,
)
from farm.methods.edit_infinity.codes import SourceCodes
from farm.methods.edit_infinity.config import (
    EditInfinityConfig,
    LoraConfig,
    PromptConfig,
)
from farm.methods.edit_infinity.lora import train_lora
from farm.methods.edit_infinity.lora_format import LoraShapes, flat_adapters, named_matrices
from farm.methods.edit_infinity.prompt import train_prompt
from farm.methods.edit_infinity.smoothing import (
    cells_of,
    is_large,
    released_cells_of,
    weights,
)
from farm.methods.edit_infinity.training import TrainingState
from tests.parity.infinity_cases.common import (
    CODES,
    GRADIENT,
    LOGITS,
    MAP,
    NOTHING,
    assert_close,
    client_of,
    generated,
    teacher_logits,
)
from tests.stages import finish


def source_codes(folder):
    """Sample 0 as the method stores it."""
    schedule = folder.schedule()
    return SourceCodes(
        layout=schedule.name,
        features=folder.features[0],
        bits=pack_bits(folder.stored.bits)[0],
        reconstruction=torch.zeros(3, *schedule.image_size, dtype=torch.uint8),
    )


def training_config(rows, steps):
    return EditInfinityConfig(
        prompt=PromptConfig(train_textembedding_iter=steps, prompt_rows=rows, noise=NOTHING),
        lora=LoraConfig(train_lora_iter=steps, lora_dropout=0.0, noise=NOTHING),
        save_every=1,
    )


def plain_query(folder, text, divergence_weight=0.0):
    codes = source_codes(folder)
    return TrainingQuery(
        text=text,
        features=codes.features,
        flips=torch.zeros_like(codes.bits),
        branch_scale=torch.ones(folder.transformer.config.depth, 2),
        dropped=False,
        divergence_weight=divergence_weight,
    )


def test_logits_on_both_bias_settings(edits):
    folder, biases, vectors = edits
    logits = teacher_logits(folder, folder.text[0], biases)
    assert_close(logits, vectors["tf_logits_sample0"], LOGITS)


def test_gradient_of_the_learned_prompt(edits):
    folder, biases, vectors = edits
    expected = vectors["s1_grad_at_zero"]
    prompt = torch.zeros_like(expected).requires_grad_()
    query = plain_query(folder, folder.text[0])
    loss = client_of(folder, biases).prompt_loss(query, prompt, folder.schedule())
    loss.loss.backward()
    assert_close(prompt.grad, expected, GRADIENT)
    assert all(p.grad is None for p in folder.transformer.parameters())


def test_training_of_the_learned_prompt(edits):
    """The stage itself, with the set's four rows and no noise."""
    folder, biases, vectors = edits
    path = vectors["s1_offset_traj"]
    config = training_config(path.shape[1], len(path))
    stage = train_prompt(
        source_codes(folder), folder.text[0], client_of(folder, biases), config, seed=0
    )
    reports, prompt = finish(stage)
    assert_close(torch.tensor(prompt.losses).double(), vectors["s1_losses"], 1e-5)
    norms = [r.detail["gradient_norm"] for r in reports if "gradient_norm" in r.detail]
    assert norms == pytest.approx(vectors["s1_gradnorm"].tolist(), rel=1e-4)
    for step, expected in enumerate(path, 1):
        # one update moves by 4.7e-5; rounding of gradients moves it by less than a hundredth
        assert_close(prompt.snapshots[step], expected, 5e-7)


def golden_lora(folder, vectors, b_prefix):
    """The set's first A, and B of a prefix or zero, as one vector."""
    shapes = lora_setup(folder, vectors)
    zeros = named_matrices(torch.zeros(shapes.size), shapes)
    found = {n: t.clone() for n, t in zeros.items()}
    for prefix in ("lora_init/", b_prefix):
        for name in vectors.having(prefix):
            found[ours(folder, name.removeprefix(prefix))] = vectors[name]
    assert found.keys() == zeros.keys()
    return flat_adapters(found, shapes)


def ours(folder, name):
    """A matrix of the set under our name: blocks are counted through all chunks."""
    parts = name.split(".")
    if parts[0] == "blocks":
        return name
    per_chunk = folder.config["depth"] // folder.config["block_chunks"]
    return ".".join(["blocks", str(int(parts[1]) * per_chunk + int(parts[3])), *parts[4:]])


def lora_setup(folder, vectors):
    sizes = folder.transformer.config
    rank = next(vectors[n].shape[0] for n in vectors.having("lora_init/"))
    return LoraShapes(sizes.depth, sizes.width, sizes.hidden, rank)


def prompted_text(folder, vectors):
    """Text of sample 0 with the set's last learned prompt."""
    return torch.cat([folder.text[0], vectors["s1_offset_traj"][-1]])


def test_logits_with_adapters(edits):
    folder, biases, vectors = edits
    shapes = lora_setup(folder, vectors)
    config = LoraConfig()
    flat = golden_lora(folder, vectors, "lora_fixB/")
    shape = LoraShape(shapes.depth, shapes.width, shapes.hidden, shapes.rank)
    lora = Lora.unflatten(flat[None], shape, torch.tensor([config.lora_alpha / shapes.rank]))
    text = prompted_text(folder, vectors)
    logits = teacher_logits(folder, text, biases, lora)
    assert_close(logits, vectors["s2_logits_fixAB"], LOGITS)
    adapters = Adapters(flat, shapes.rank, config.lora_alpha / shapes.rank)
    loss = client_of(folder, biases).lora_loss(
        plain_query(folder, text), adapters, folder.schedule(), dropout=0.0, dropout_seed=0
    )
    assert loss.loss.item() == pytest.approx(vectors["s2_loss_fixAB"].item(), abs=1e-5)


def test_first_gradient_of_the_adapters(edits):
    folder, biases, vectors = edits
    shapes, config = lora_setup(folder, vectors), LoraConfig()
    flat = golden_lora(folder, vectors, "none/").requires_grad_()
    adapters = Adapters(flat, shapes.rank, config.lora_alpha / shapes.rank)
    query = plain_query(folder, prompted_text(folder, vectors), config.kl_weight)
    loss = client_of(folder, biases).lora_loss(
        query, adapters, folder.schedule(), dropout=0.0, dropout_seed=0
    )
    loss.loss.backward()
    found = named_matrices(flat.grad, shapes)
    names = vectors.having("s2_grad0/")
    assert names
    for name in names:
        assert_close(found[ours(folder, name.removeprefix("s2_grad0/"))], vectors[name], GRADIENT)
    assert all(p.grad is None for p in folder.transformer.parameters())


def test_training_of_the_adapters(edits):
    """The stage itself, from the set's first adapters."""
    folder, biases, vectors = edits
    shapes = lora_setup(folder, vectors)
    losses = vectors["s2_losses"]
    config = training_config(1, len(losses))
    first = TrainingState.starting(golden_lora(folder, vectors, "none/"))
    stage = train_lora(
        source_codes(folder),
        prompted_text(folder, vectors),
        client_of(folder, biases),
        config,
        seed=0,
        checkpoint=first,
    )
    reports, lora = finish(stage)
    assert_close(torch.tensor(lora.losses).double(), losses, 1e-5)
    norms = [r.detail["gradient_norm"] for r in reports if "gradient_norm" in r.detail]
    assert norms == pytest.approx(vectors["s2_gradnorm"].tolist(), rel=1e-4)
    found = named_matrices(lora.flat(len(losses)), shapes)
    names = vectors.having("s2_after3/")
    assert names
    for name in names:
        # three updates of 4.7e-5: of gradients that are nearly zero, rounding decides the sign
        assert_close(found[ours(folder, name.removeprefix("s2_after3/"))], vectors[name], 2e-6)


def test_attention_of_a_word(edits):
    """One teacher-forced pass gives the map that guided generation gave."""
    folder, biases, vectors = edits
    expected = vectors["attn_final64_pn"]
    span = range(*vectors["attn_span"].tolist())
    found = client_of(folder, biases).word_attention(
        folder.text[0],
        list(span),
        source_codes(folder).bits,
        folder.schedule(),
        tuple(expected.shape),
    )
    assert_close(found, expected, MAP)


def test_replacing_all_codes_gives_the_source_and_teacher_forced_logits(edits):
    folder, biases, vectors = edits
    source = [bits[:1] for bits in folder.stored.bits]
    keep = Keep(source, torch.ones(1, 1, *folder.schedule().latent_size))
    steps = generated(folder, folder.text[0], 4.0, 0.5, 0, biases, keep)
    assert_close(steps[-1].codes, vectors["attn_replaced_codes"], CODES)
    logits = torch.cat([step.logits for step in steps], dim=1)
    # 4 c - 3 u at temperature 0.5 multiplies errors of single logits by up to 14
    assert_close(logits[0], vectors["attn_tf_logits_cfg4_tau05"], 14 * LOGITS)
    uncond = folder.transformer.unconditional(len(folder.text[0]))
    teacher = teacher_logits(folder, folder.text[0], biases)
    without = teacher_logits(folder, uncond, biases)
    assert_close((4 * teacher - 3 * without) / 0.5, logits, 14 * LOGITS)


def test_weights_of_a_mask(masks, mask_name):
    shape = tuple(masks[f"{mask_name}/shape"].tolist())
    region = ~masks.unpacked(f"{mask_name}/packed", shape)  # 0 is where to edit
    expected = masks[f"{mask_name}/weight"]
    rows, columns = expected.shape
    cells = released_cells_of(region, rows, columns)
    coarse = released_cells_of(region, 4, 4)
    assert int(cells.sum()) == masks[f"{mask_name}/n64"].item()
    assert int(coarse.sum()) == masks[f"{mask_name}/n4"].item()
    found = weights(cells, "released", large=int(coarse.sum()) >= 6)
    assert torch.equal(found, expected)
    if shape[0] % rows == 0 and shape[1] % columns == 0:
        assert torch.equal(cells_of(region, rows, columns), cells)
        assert is_large(region) == (int(coarse.sum()) >= 6)
