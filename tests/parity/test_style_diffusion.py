"""StyleDiffusion against the vectors of the released program (`--golden DIR`, README there).

Tolerances follow that README; each is commented where it is used. Sizes, prompts and edits are
read from the set.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from farm.diffusion import NoiseQuery, ValueQuery
from farm.errors import InvalidPromptError
from farm.methods.style_diffusion.blend import blend, blend_active, region, widen
from farm.methods.style_diffusion.config import EditingConfig, InversionConfig
from farm.methods.style_diffusion.editing import edit_steps, learned_values, reconstruct
from farm.methods.style_diffusion.inversion import train_timestep
from farm.methods.style_diffusion.inverted import Inversion, InversionState
from farm.methods.style_diffusion.mappers import equalizer, refinement_map, replacement_map
from farm.methods.style_diffusion.mapping_network import MappingNetwork, output_of, value_input
from farm.methods.style_diffusion.plan import plan_edit
from farm.methods.style_diffusion.windows import cross_windows, self_active, value_active
from farm.methods.style_diffusion.words import find_words, word_positions
from farm.samplers.ddim import NoiseSchedule, ddim_invert, ddim_step
from farm.samplers.guidance import guide
from tests.parity.conftest import load_float

END = 49407  # CLIP's end token, which pads
DROPPED = (
    "running_mean",
    "running_var",
    "num_batches_tracked",
)  # stored by the program, never read


@dataclass(frozen=True)
class StoredTokens:
    """Tokens of a prompt as the set stores them."""

    prompt: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    length: int


def relative(actual, expected):
    """Largest deviation over the largest magnitude, as the set's README measures."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def network_states(tensors, count):
    prefixes = [f"m{n}." for n in range(count)]
    return tuple(
        {
            name.removeprefix(prefix): value.float()
            for name, value in tensors.items()
            if name.startswith(prefix) and not name.endswith(DROPPED)
        }
        for prefix in prefixes
    )


@pytest.fixture(scope="module")
def alignment(golden) -> list[dict[str, Any]]:
    return json.loads((golden / "alignment.json").read_text())


@pytest.fixture(scope="module")
def tokens_of(alignment):
    known: dict[str, StoredTokens] = {}
    for pair in alignment:
        for side in ("source", "target"):
            ids, pieces = pair[f"{side}_tokens"], pair[f"{side}_pieces"]
            padded = (*ids, *[END] * (len(pair["refine_index"]) - len(ids)))
            known[pair[side]] = StoredTokens(pair[side], padded, tuple(pieces[1:-1]), len(ids))
    return known.__getitem__


@pytest.fixture(scope="module")
def mapping(golden):
    return load_float(golden / "mapping.safetensors")


@pytest.fixture(scope="module")
def losses(golden):
    return json.loads((golden / "losses.json").read_text())


@pytest.fixture(scope="module")
def config(golden_meta) -> InversionConfig:
    return InversionConfig(
        num_steps=golden_meta["T"],
        guidance_scale=golden_meta["guidance"],
        inner_steps=golden_meta["inner"],
        stop_base=golden_meta["early_stop_epsilon"],
    )


@pytest.fixture(scope="module")
def start(golden_ddim, mapping) -> InversionState:
    """The stored trajectory and features, before any network is trained."""
    return InversionState(
        trajectory=golden_ddim["latents"],
        image_tokens=mapping["features"][0],
        source_embeds=golden_ddim["ctx_source"][0],
        uncond_embeds=golden_ddim["ctx_uncond"][0],
        latents=golden_ddim["latents"][-1],
    )


@pytest.fixture(scope="module")
def trained(golden, golden_meta, config, start) -> Inversion:
    """The stored final networks, in the rounded form with which the set's edits were made."""
    count = config.num_steps
    states = network_states(load_file(golden / "mapping_final_half.safetensors"), count)
    done = replace(start, networks=states, losses=(0.0,) * count, executed=(0,) * count)
    return Inversion(golden_meta["source_prompt"], config, done)


# Sampling


def test_schedule(golden_ddim, golden_meta, golden_spec):
    schedule = NoiseSchedule.from_spec(golden_spec)
    assert schedule.timesteps(golden_meta["T"]) == golden_ddim["timesteps"].tolist()
    assert golden_meta["timesteps"] == golden_ddim["timesteps"].tolist()
    # float32 products of 1000 factors, in whatever order
    torch.testing.assert_close(
        schedule.alphas_cumprod, golden_ddim["alphas_cumprod"], atol=1e-7, rtol=1e-6
    )


def test_ddim_latents(golden_ddim, golden_meta, golden_spec, golden_client):
    embeds = golden_ddim["ctx_source"][0]

    def denoiser(latents, timestep):
        return golden_client.noise(NoiseQuery(latents, timestep, embeds))

    moves = NoiseSchedule.from_spec(golden_spec).inverting(golden_meta["T"])
    levels = list(ddim_invert(denoiser, golden_ddim["z0"][0], moves))
    for actual, expected in zip(levels, golden_ddim["latents"][1:], strict=True):
        assert relative(actual, expected) < 1e-5  # README: ddim 1e-5


# Inversion


def test_mapping_network(mapping, start):
    (state,) = network_states(mapping, 1)
    output = output_of(state, start.image_tokens)
    # one product of 197 terms and two of 154 in float32, then a division by a small deviation
    torch.testing.assert_close(output, mapping["m0_raw_output"][0], atol=1e-5, rtol=1e-5)
    values = value_input(output, start.source_embeds)
    torch.testing.assert_close(values, mapping["m0_value_input"][0], atol=1e-5, rtol=1e-5)


def test_budgets_rates_and_thresholds(losses, config):
    indices = range(config.num_steps)
    assert [config.budget(n) for n in indices] == losses["inner_budget"]
    assert [config.learning_rate_at(n) for n in indices] == pytest.approx(losses["lr"], rel=1e-12)
    thresholds = [config.stop_below(n) for n in indices]
    assert thresholds == pytest.approx(losses["stop_threshold"], rel=1e-12)


def value_query(state, golden_spec, config, noise_uncond) -> ValueQuery:
    """By hand from spec §0.4 and §6, as a second derivation of what `inversion` asks."""
    index, levels = state.index, config.num_steps
    move = NoiseSchedule.from_spec(golden_spec).denoising(levels)[index]
    timesteps = NoiseSchedule.from_spec(golden_spec).timesteps(levels)
    return ValueQuery(
        latents=state.latents,
        timestep=move.timestep,
        embeds=state.source_embeds,
        noise_uncond=noise_uncond,
        guidance_scale=config.guidance_scale,
        alpha=move.alpha,
        alpha_prev=move.alpha_to,
        target_latents=state.trajectory[levels - index - 1],
        map_latents=state.trajectory[levels - index if index else levels - 1],
        map_timestep=timesteps[index - 1 if index else 0],
        attention_weight=1.0,
    )


def test_first_iteration(mapping, start, config, golden_spec, golden_client):
    move = NoiseSchedule.from_spec(golden_spec).denoising(config.num_steps)[0]
    values = mapping["m0_value_input"][0].clone().requires_grad_()
    uncond = golden_client.noise(NoiseQuery(start.latents, move.timestep, start.uncond_embeds))
    assert relative(uncond, mapping["step0_eps_uncond"][0]) < 1e-5  # one forward pass
    cond = golden_client.noise(
        NoiseQuery(start.latents, move.timestep, start.source_embeds, values.detach())
    )
    assert relative(cond, mapping["step0_eps_cond"][0]) < 1e-5
    noise = guide(uncond, cond, config.guidance_scale)
    moved = ddim_step(start.latents, noise, move.alpha, move.alpha_to)
    assert relative(moved, mapping["step0_z_prev"][0]) < 1e-5

    query = value_query(start, golden_spec, config, uncond)
    both = golden_client.value_loss(query, values)
    expected = mapping["step0_loss"].tolist()
    assert [both.latent_loss, both.attention_loss] == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(both.loss, values)
    latent = golden_client.value_loss(replace(query, attention_weight=0.0), values)
    (latent_gradient,) = torch.autograd.grad(latent.loss, values)
    # README: gradients 1e-4; they sum over all cross-attention layers
    assert relative(latent_gradient, mapping["step0_grad_value_rec"][0]) < 1e-4
    assert relative(gradient - latent_gradient, mapping["step0_grad_value_attn"][0]) < 1e-4


def test_probe_losses_and_gradients(mapping, trained, golden_spec, golden_client):
    """Loss and value gradient of every timestep, with stored networks at stored latents."""
    config, done = trained.config, trained.state
    moves = NoiseSchedule.from_spec(golden_spec).denoising(config.num_steps)
    for index, move in enumerate(moves):
        latents = mapping["latents_after_timestep"][index - 1] if index else done.latents
        state = replace(done, latents=latents, networks=done.networks[:index])
        uncond = golden_client.noise(NoiseQuery(latents, move.timestep, done.uncond_embeds))
        output = output_of(done.networks[index], done.image_tokens)
        values = value_input(output, done.source_embeds).requires_grad_()
        result = golden_client.value_loss(value_query(state, golden_spec, config, uncond), values)
        (gradient,) = torch.autograd.grad(result.loss, values)
        expected = mapping["probe_losses"][index].tolist()
        # README: probe losses 1e-5, probe gradients 1e-4
        assert [result.latent_loss, result.attention_loss] == pytest.approx(expected, rel=1e-5)
        assert relative(gradient, mapping["probe_grad_value"][index, 0]) < 1e-4


def test_training_follows_the_published_run(
    mapping, losses, start, config, golden_spec, golden_client
):
    """Every inner loss, and how many steps each timestep took."""
    rows = {(row[0], row[1]): row[2:] for row in losses["rows"]}
    network = MappingNetwork(golden_spec.image_tokens, 2 * golden_spec.tokens)
    network.load_state_dict(network_states(mapping, 1)[0])
    state = start
    while state.index < config.num_steps:
        index = state.index
        training = train_timestep(state, network, golden_client, config)
        while True:
            try:
                progress = next(training)
            except StopIteration as done:
                state = done.value
                break
            if progress.loss is None:
                continue
            latent, attention, total = rows[index, int(progress.detail["inner_step"])]
            # README: Adam amplifies rounding; an independent implementation matched the first
            # timestep's losses to 2e-6 and later ones to 2e-3
            allowed = 2e-6 if index == 0 else 2e-3
            found = [progress.detail["latent_loss"], progress.detail["attention_loss"]]
            assert found == pytest.approx([latent, attention], abs=allowed)
            assert progress.loss == pytest.approx(total, abs=allowed)
        expected = mapping["latents_after_timestep"][index]
        # README: values drift up to 15 per cent later on, so there only a blunder would show
        assert relative(state.latents, expected) < (1e-4 if index == 0 else 5e-2)
    assert list(state.executed) == losses["executed"]


# Words


def test_words_become_the_stored_tokens(alignment, tokens_of):
    for pair in alignment:
        for side in ("source", "target"):
            tokens = tokens_of(pair[side])
            found = {word: find_words(tokens, word) for word in pair[side].split()}
            assert found == pair[f"{side}_word_tokens"]
            assert sum(len(p) for p in word_positions(tokens)) == len(tokens.pieces)


def test_replacement_maps(alignment, tokens_of):
    for pair in alignment:
        source, target = tokens_of(pair["source"]), tokens_of(pair["target"])
        if "replace_error" in pair:
            with pytest.raises(InvalidPromptError, match="use the same number of words"):
                replacement_map(source, target, reference=True)
            continue
        size = len(source.ids)
        expected = torch.zeros(size, size)
        for row in pair["replace_identity_rows"]:
            expected[row, row] = 1
        for row, column, value in pair["replace_nonzero"]:
            expected[row, column] = value
        found = replacement_map(source, target, reference=True)
        assert torch.equal(found.mapper, expected)
        assert torch.equal(found.alpha, torch.ones(size))


def test_refinement_maps(alignment, tokens_of):
    for pair in alignment:
        source, target = tokens_of(pair["source"]), tokens_of(pair["target"])
        found = refinement_map(source, target, reference=True)
        assert found.alpha.tolist() == pair["refine_alpha"]
        for column, row in enumerate(pair["refine_index"]):
            expected = torch.zeros(len(source.ids))
            if pair["refine_alpha"][column]:
                expected[row] = 1
            assert torch.equal(found.mapper[:, column], expected), (pair["target"], column)


def test_equalizers(golden, tokens_of):
    vectors = load_file(golden / "p2p.safetensors")
    for case in json.loads((golden / "p2p.json").read_text())["controllers"]:
        if case["eq"] is not None:
            weights = zip(*case["eq"], strict=True)
            found = equalizer(tokens_of(case["prompts"][1]), weights)
            assert torch.equal(found, vectors[f"{case['name']}.equalizer"])


# Windows and blend


def test_windows(golden):
    for row in json.loads((golden / "windows.json").read_text()):
        steps, tau = row["steps"], row["tau"]
        table = cross_windows(steps, 1, (0.0, tau))
        assert int(table.sum()) == row["cross_steps"], row
        assert sum(self_active(n, steps, (0.0, tau)) for n in range(steps)) == row["self_steps"]
        assert sum(value_active(n, steps, tau) for n in range(steps)) == row["value_steps"]


def test_word_windows(golden, tokens_of):
    stored = json.loads((golden / "p2p.json").read_text())
    case = stored["word_alpha"]
    target = tokens_of(case["prompts"][1])
    windows = dict(case["steps"])
    default = (0.0, windows.pop("default_"))
    exceptions = [(find_words(target, word), tuple(window)) for word, window in windows.items()]
    found = cross_windows(stored["steps"], len(target.ids), default, exceptions)
    expected = load_file(golden / "p2p.safetensors")["word_alpha"][:, 0].float()
    assert torch.equal(found, expected)


def word_scores(maps, tokens, words):
    """Mean over layers of the attention to some words; maps [layers, 2, pixels, tokens]."""
    columns = [
        [n for word in w for n in find_words(t, word)] for t, w in zip(tokens, words, strict=True)
    ]
    rows = [maps[:, n][..., columns[n]].sum(-1).mean(0) for n in range(2)]
    size = round(maps.shape[2] ** 0.5)
    return torch.stack(rows).unflatten(-1, (size, size))


def test_local_blend(golden, tokens_of):
    vectors = load_float(golden / "p2p.safetensors")
    stored = json.loads((golden / "p2p.json").read_text())
    for case in stored["blends"]:
        name = case["name"]
        tokens = [tokens_of(prompt) for prompt in case["prompts"]]
        latents, maps = vectors[f"{name}.x"], vectors[f"{name}.maps"]
        mask = region(widen(word_scores(maps, tokens, case["blend"])), 0.3, latents.shape[-1])
        # of the stored pair the target's mask is the union; the source's is its own and idle
        assert torch.equal(mask, vectors[f"{name}.mask"][1, 0].bool())
        if "subtract" in case:
            without = region(word_scores(maps, tokens, case["subtract"]), 0.3, latents.shape[-1])
            assert torch.equal(without, vectors[f"{name}.sub_mask"][1, 0].bool())
            mask &= ~without
        target = blend(latents, mask)[1, :, ::4, ::4]
        # a choice between two stored tensors: rounding of one sum and difference at most
        torch.testing.assert_close(target, vectors[f"{name}.y_target"][0], atol=1e-6, rtol=0)
        active = [blend_active(n, stored["steps"], 0.2) for n in range(stored["steps"])]
        assert active.index(True) == case["first_active_call"] - 1  # calls are counted from 1


# Edits


def editing_config(case) -> EditingConfig:
    words = case["blend"] or [None, None]
    return EditingConfig(
        tau_v=case["tau_v"],
        tau_c=case["tau_c"],
        tau_s=case["tau_s"],
        tau_u=case["tau_u"],
        edit_type={"Replacement": "replace", "Refinement": "refine"}[case["type"]],
        equalizer=tuple(zip(*case["eq"], strict=True)) if case["eq"] else (),
        local_blend=case["blend"] is not None,
        source_words=words[0],
        target_words=words[1],
        reference=True,
    )


def assert_masks(steps, expected):
    """Steps that blend, and where; a handful of pixels may sit on the threshold (README)."""
    masks = [step.mask for step in steps if step.mask is not None]
    assert len(masks) == len(expected)
    for actual, stored in zip(masks, expected, strict=True):
        assert (actual != stored[1, 0].bool()).sum() <= 5  # the target's; see test_local_blend


def test_edits(golden, golden_ddim, golden_client, trained, tokens_of):
    vectors = load_file(golden / "edits.safetensors")
    for case in json.loads((golden / "edits.json").read_text()):
        if case["type"] == "StoreAttn":
            continue
        name, edit_config = case["name"], editing_config(case)
        source, target = map(tokens_of, case["prompts"])
        plan = plan_edit(source, target, edit_config, trained.config.num_steps)
        embeds = golden_ddim[f"ctx_{case['target']}"][0]
        steps = list(edit_steps(trained, embeds, plan, golden_client, edit_config))
        expected = vectors[f"{name}.latents"]
        kept = steps if len(expected) == len(steps) else steps[-1:]
        for actual, stored in zip(kept, expected, strict=True):
            assert relative(actual.latents, stored) < 1e-4, name  # README: edits 1e-4
        if case["blend"] is None:
            continue
        assert_masks(steps, vectors[f"{name}.blend_mask"])
        scores = torch.stack([step.scores for step in steps if step.mask is not None])
        assert relative(scores, vectors[f"{name}.blend_score"][:, :, 0]) < 1e-4, name


def test_reconstruction_with_learned_values(golden, golden_client, trained):
    """The program's StoreAttn mode: one row, learned values in every step."""
    values = learned_values(trained, trained.state.source_embeds)
    found = reconstruct(trained, golden_client, values)
    expected = load_file(golden / "edits.safetensors")["store.latents"][-1, 0]
    assert relative(found, expected) < 1e-4  # README: edits 1e-4


def test_edit_with_the_block_layout_of_stable_diffusion(golden, full64_client, tokens_of):
    """Self-attention at 64x64 is neither stored nor replaced."""
    meta = json.loads((golden / "full64" / "meta.json").read_text())
    vectors = load_float(golden / "full64" / "edit.safetensors")
    count = meta["T"]
    latents = vectors["z_start"][0]
    state = InversionState(
        trajectory=latents.expand(count + 1, -1, -1, -1),
        image_tokens=vectors["features"][0],
        source_embeds=vectors["ctx_source"][0],
        uncond_embeds=vectors["ctx_uncond"][0],
        latents=latents,
        networks=network_states(vectors, count),
        losses=(0.0,) * count,
        executed=(0,) * count,
    )
    inversion = Inversion(meta["prompts"][0], InversionConfig(num_steps=count), state)
    case = meta | {"type": meta["edit"], "eq": meta["equalizer"]}
    config = editing_config(case)
    source, target = map(tokens_of, meta["prompts"])
    plan = plan_edit(source, target, config, count)
    steps = list(edit_steps(inversion, vectors["ctx_target"][0], plan, full64_client, config))
    for actual, expected in zip(steps, vectors["latents"], strict=True):
        assert relative(actual.latents, expected) < 1e-4  # README: edits 1e-4
    assert_masks(steps, vectors["blend_mask"])
