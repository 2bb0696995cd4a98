"""Infinity and EditInfinity against vectors of the public programs (`--golden DIR`, README there).

Folders, sizes and files are found in the set. The last test fails if an array was not read.
Tolerances are those of spec §10; each is commented where it is used. Bits are compared exactly.
"""

import numpy as np
import pytest
import torch

from farm.backbones.infinity.generation import Guidance, Keep, generate
from farm.backbones.infinity.lora import Lora, LoraShape
from farm.backbones.infinity.loss import bit_loss, margins_of
from farm.backbones.infinity.packing import pack_bits, unpack_bits
from farm.backbones.infinity.quantiser import (
    accumulate,
    codes_of,
    quantise,
    resize,
    teacher_inputs,
    teacher_targets,
    to_cells,
)
from farm.backbones.infinity.rope import rope_table
from farm.backbones.infinity.sampling import Filter, KeyedNoise, draw, probabilities
from farm.backbones.infinity.schedules import RATIOS, SIZES, table_schedule
from farm.backbones.infinity.transformer import PassOptions
from farm.methods.edit_infinity.client import (
    Adapters,
    EditQuery,
    InfinityClient,
    TrainingQuery,
)
from farm.methods.edit_infinity.codes import SourceCodes
from farm.methods.edit_infinity.config import (
    EditInfinityConfig,
    LoraConfig,
    NoiseConfig,
    PromptConfig,
)
from farm.methods.edit_infinity.lora import train_lora
from farm.methods.edit_infinity.lora_format import LoraShapes, flat_adapters, named_matrices
from farm.methods.edit_infinity.prompt import train_prompt
from farm.methods.edit_infinity.smoothing import (
    above_threshold,
    cells_of,
    is_large,
    plotted,
    released_cells_of,
    weights,
)
from farm.methods.edit_infinity.training import TrainingState
from tests.parity.infinity_set import Vectors, folders_of, set_of

ENCODER = 2e-5
DECODER = 1e-5
LOGITS = 5e-5
ROPE = 1e-6
MAP = 1e-6
CODES = 2e-6  # sums of up to 13 codes of at most 1/√6 each, in single precision
GRADIENT = 1e-4
LOSS = 2e-6  # means over thousands of tokens in single precision
NOTHING = NoiseConfig(flip_strength=0.0)
GREEDY = Filter(top_k=1)
AR_RUNS = {  # README: tag -> guidance, temperature, insertion
    "cfg1": (1.0, 1.0, 0),
    "cfg3": (3.0, 0.5, 0),
    "cfg3_layer": (3.0, 1.0, -2),
}
SAMPLERS = {
    "k900_p97": Filter(900, 0.97),
    "k0_p90": Filter(0, 0.90),
    "k1_p0": Filter(1, 0.0),
    "k0_p0": Filter(0, 0.0),
}


def pytest_generate_tests(metafunc):
    """One test per folder, editing file, table of positions and mask: whatever is there."""
    root = set_of(metafunc.config.getoption("--golden"))
    found = found_in(root)
    if "folder" in metafunc.fixturenames:
        metafunc.parametrize("folder", found["folders"], ids=lambda f: f.path.name)
    if "edits" in metafunc.fixturenames:
        metafunc.parametrize("edits", found["edits"], ids=edits_name)
    if "large" in metafunc.fixturenames:
        metafunc.parametrize("large", found["large"], ids=edits_name)
    if "table" in metafunc.fixturenames:
        metafunc.parametrize("table", found["tables"], ids=lambda v: v.path.stem)
    if "mask_name" in metafunc.fixturenames:
        names = {name.split("/")[0] for name in found["masks"].names}
        metafunc.parametrize("mask_name", sorted(names))


_FOUND = {}


def found_in(root):
    """Everything in a set, opened once."""
    if root not in _FOUND:
        folders = folders_of(root)
        _FOUND[root] = {
            "folders": folders,
            "edits": [(f, b, v) for f in folders for b, v in f.edits.items()],
            "large": [(f, b, v) for f in folders for b, v in f.large_edits.items()],
            "tables": [Vectors(p) for p in sorted(root.glob("rope_*.npz"))],
            "masks": Vectors(root / "masks.npz"),
        }
    return _FOUND[root]


def edits_name(case):
    folder, biases, _ = case
    return f"{folder.path.name}-{'bias' if biases else 'nobias'}"


@pytest.fixture
def masks(request):
    return found_in(set_of(request.config.getoption("--golden")))["masks"]


def assert_close(actual, expected, tolerance):
    worst = (actual - expected).abs().max().item()
    assert actual.shape == expected.shape
    assert worst <= tolerance, f"largest difference {worst:.2e}"


def assert_same_bits(actual, expected):
    assert actual.shape == expected.shape
    assert int((actual != expected).sum()) == 0


def mean_pool(images, size):
    return torch.nn.functional.avg_pool2d(images, size)


def as_bgr(images):
    """Pictures in [0, 1] as the public program writes them: BGR, truncated; (batch, h, w, 3)."""
    # Ours comes from a clamped [-1, 1] by (x + 1) / 2, which is what theirs multiplies by 255.
    return (images * 255).to(torch.uint8).permute(0, 2, 3, 1).flip(3)


def assert_nearly_equal_bytes(actual, expected):
    """Truncation turns a rounding error into a whole level where a value is nearly one."""
    difference = (actual.int() - expected.int()).abs()
    assert int(difference.max()) <= 1
    assert difference.float().mean() < 1e-3


def teacher_logits(folder, text, biases=True, lora=None):
    """Logits of sample 0's bits."""
    schedule = folder.schedule()
    inputs = teacher_inputs(folder.stored, schedule)[:1]
    with torch.no_grad():
        given = folder.transformer.condition(text[None], biases=biases)
        options = PassOptions(biases=biases, lora=lora)
        return folder.transformer(given, inputs, schedule, options)[0]


# --- schedules and positions ------------------------------------------------------------------


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


# --- autoencoder and quantiser ----------------------------------------------------------------


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


# --- transformer ------------------------------------------------------------------------------


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


def generated(folder, text, strength, temperature, insertion, biases=True, keep=None, size=None):
    model, schedule = folder.transformer, folder.schedule(size)
    options = PassOptions(biases=biases)
    with torch.no_grad():
        given = model.condition(text[None], biases=biases)
        uncond = None
        if strength != 1:
            uncond = model.condition(model.unconditional(len(text))[None], biases=biases)
    scales = schedule.num_scales
    guidance = Guidance(
        uncond,
        torch.full((1, scales), strength),
        torch.full((1, scales), temperature),
        insertion,
    )
    return list(
        generate(model, given, schedule, guidance, GREEDY, None, keep=keep, options=options)
    )


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


# --- editing: prompt, adapters, attention -----------------------------------------------------


def client_of(folder, biases, size=None):
    return InfinityClient(folder.executor(size), folder.spec(size), biases=biases)


def source_codes(folder):
    """Sample 0 as the method stores it."""
    schedule = folder.schedule()
    return SourceCodes(
        layout=schedule.name,
        features=folder.features[0],
        bits=pack_bits(folder.stored.bits)[0],
        reconstruction=torch.zeros(3, *schedule.image_size, dtype=torch.uint8),
    )


def run_through(stage):
    reports = []
    while True:
        try:
            reports.append(next(stage))
        except StopIteration as done:
            return reports, done.value


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
    reports, prompt = run_through(stage)
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
    reports, lora = run_through(stage)
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


# --- masks and weights ------------------------------------------------------------------------


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


# --- a whole edit at a megapixel --------------------------------------------------------------


@pytest.fixture(scope="module")
def large_source():
    """Codes of the large picture by folder, encoded once."""
    found = {}

    def source(folder, vectors):
        if folder.path not in found:
            schedule = folder.schedule("1M")
            small = vectors["image1M_thumb_u8"].permute(2, 0, 1).float() / 255
            image = resize_by_repeating(small, schedule.image_size)
            features, bits = client_of(folder, True, "1M").encode(image, schedule)
            nothing = torch.zeros(image.shape, dtype=torch.uint8)
            found[folder.path] = SourceCodes(schedule.name, features, bits, nothing)
        return found[folder.path]

    return source


def resize_by_repeating(picture, size):
    times = (size[0] // picture.shape[1], size[1] // picture.shape[2])
    return picture.repeat_interleave(times[0], 1).repeat_interleave(times[1], 2)


def test_large_source(large, large_source):
    folder, _, vectors = large
    codes = large_source(folder, vectors)
    assert np.array_equal(codes.bits.numpy(), vectors.array("src_bits_packed"))
    schedule = folder.schedule("1M")
    bits = unpack_bits(codes.bits[None], schedule, folder.vae.config.bits)
    with torch.no_grad():  # these means are of values that were not clamped
        decoded = folder.vae.decoder(accumulate(bits, schedule).codes.contiguous())
    assert_close(mean_pool(decoded, 16), vectors["src_rec_mean16"], DECODER)


def test_large_mask_and_weight(large):
    folder, _, vectors = large
    region = large_region(folder, vectors)
    expected = vectors["weight64"]
    found = weights(cells_of(region, *expected.shape), "released", large=is_large(region))
    assert torch.equal(found, expected)


def large_region(folder, vectors):
    return ~vectors.unpacked("mask_packed", folder.schedule("1M").image_size)


def test_large_edit(large, large_source):
    """Generation that keeps the source outside the mask: guidance 4, temperature 0.5, greedy."""
    folder, biases, vectors = large
    schedule, codes = folder.schedule("1M"), large_source(folder, vectors)
    region = large_region(folder, vectors)
    cells = cells_of(region, *schedule.latent_size)
    query = EditQuery(
        text=folder.text[1],
        bits=codes.bits,
        weight=weights(cells, "released", large=is_large(region)),
        guidance=(4.0,) * schedule.num_scales,
        temperature=(0.5,) * schedule.num_scales,
        seed=0,
        top_k=1,
        top_p=0.0,
    )
    client = client_of(folder, biases, "1M")
    image, bits = client.edit(query, schedule)
    assert np.array_equal(bits.numpy(), vectors.array("edit_bits_packed"))
    # The stored picture was decoded from channels-last memory by two threads: so decoded, ours is
    # the same to the byte. Over a million pixels that memory makes normalisation wrong by up to
    # 0.003 of the range [-1, 1] (measured in double precision), a third of a level.
    means = mean_pool(as_bgr(image[None]).permute(0, 3, 1, 2).float(), 16)
    assert_close(means, vectors["edit_img_mean16"], 0.35)
    expected = vectors["edit_img_crop"]  # README: this window of the picture
    found = as_bgr(image[None])[0, 480:528, 560:608]
    difference = (found.int() - expected.int()).abs()
    assert int(difference.max()) <= 1
    assert difference.float().mean() < 0.1
    blended = kept_codes(folder, schedule, codes.bits, bits, query.weight)
    assert_close(blended, vectors["edit_codes"], 2 * CODES)


def kept_codes(folder, schedule, source, drawn, weight):
    channels = folder.vae.config.bits
    both = [unpack_bits(packed[None], schedule, channels) for packed in (source, drawn)]
    total = 0
    for ours_, theirs in zip(*both, strict=True):
        size = schedule.latent_size
        total = total + weight * resize(codes_of(ours_), size)
        total = total + (1 - weight) * resize(codes_of(theirs), size)
    return total


def test_large_edit_is_decided_clearly(large, large_source):
    """Logits along the stored edit: those of scale 9, and the smallest margins everywhere."""
    folder, biases, vectors = large
    schedule, codes = folder.schedule("1M"), large_source(folder, vectors)
    channels = folder.vae.config.bits
    drawn = unpack_bits(vectors["edit_bits_packed"][None], schedule, channels)
    source = unpack_bits(codes.bits[None], schedule, channels)
    weight = vectors["weight64"]
    total, history = 0, []
    for ours_, theirs in zip(source, drawn, strict=True):
        total = total + weight * resize(codes_of(ours_), schedule.latent_size)
        total = total + (1 - weight) * resize(codes_of(theirs), schedule.latent_size)
        history.append(total)
    known = accumulate(drawn, schedule)
    inputs = teacher_inputs(type(known)(known.bits, tuple(history)), schedule)
    uncond = folder.transformer.unconditional(len(folder.text[1]))
    both = []
    for text in (folder.text[1], uncond):
        with torch.no_grad():
            given = folder.transformer.condition(text[None], biases=biases)
            options = PassOptions(biases=biases)
            both.append(folder.transformer(given, inputs, schedule, options)[0])
    logits = (4 * both[0] - 3 * both[1]) / 0.5
    scales = logits.split(schedule.lengths, dim=1)
    expected = vectors["edit_logits_scale9_first64"]
    assert_close(scales[9][0, : len(expected)], expected, 14 * LOGITS)
    margins = torch.stack([margins_of(scale).abs().min() for scale in scales])
    assert_close(margins.double(), vectors["edit_min_margin_per_scale"], 28 * LOGITS)


def test_large_attention_and_automatic_mask(large, large_source):
    folder, biases, vectors = large
    schedule, codes = folder.schedule("1M"), large_source(folder, vectors)
    expected = vectors["attn_final64_1M"]
    span = list(range(*vectors["attn_span"].tolist()))
    found = client_of(folder, biases, "1M").word_attention(
        folder.text[0], span, codes.bits, schedule, tuple(expected.shape)
    )
    assert_close(found, expected, MAP)
    threshold = expected.min() + 0.5 * (expected.max() - expected.min())
    assert threshold.item() == pytest.approx(vectors["attn_thr"].item(), abs=MAP)
    region = above_threshold(expected, 0.5)
    assert_same_bits(~region, vectors["attn_mask64"].bool())
    ideal = weights(region, "released", large=is_large(region))
    assert torch.equal(ideal, vectors["attn_ideal_weight64"])
    picture = plotted(region)
    assert list(picture.shape) == vectors["attn_png_size"].tolist()
    rows, columns = vectors["attn_png_weight64"].shape
    large_ = int(released_cells_of(picture, 4, 4).sum()) >= 6
    distorted = weights(released_cells_of(picture, rows, columns), "released", large=large_)
    assert torch.equal(distorted, vectors["attn_png_weight64"])


# --- nothing is skipped -----------------------------------------------------------------------


def test_every_array_was_read(request):
    """Must be the last of this file; judged only where the whole file runs."""
    here = [item for item in request.session.items if item.path == request.node.path]
    names = {item.originalname for item in here}
    module = request.node.getparent(pytest.Module).obj
    if names != {name for name in vars(module) if name.startswith("test_")}:
        pytest.skip("only some tests of this file were selected")
    root = set_of(request.config.getoption("--golden"))
    found = found_in(root)
    files = [v for folder in found["folders"] for v in folder.files]
    files += [*found["tables"], found["masks"]]
    unread = [f"{v.path.relative_to(root)}: {name}" for v in files for name in v.unread]
    assert not unread
    known = {v.path for v in files}
    assert set(root.rglob("*.npz")) == known, "a file of the set that no test knows"
