import pytest
import torch

from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.chain import train_timestep
from farm.methods.style_diffusion.conditions import learned_values
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.editing import edit_cells
from farm.methods.style_diffusion.inverted import fresh_state
from farm.methods.style_diffusion.mapping_network import (
    build_mapping_network,
    initialise,
    leave_values,
    output_of,
    state_of,
    value_input,
)
from farm.methods.style_diffusion.plan import plan_prompts
from farm.training import keyed_generator
from tests.farm.methods.style_diffusion.runs import CONFIG, SOURCE, TARGET, inverted, metered_client
from tests.stages import finish
from tests.tiny import tiny_spec, tiny_tokenizer

NEVER_SOLVED = {"stop_base": 0.0, "stop_slope": 0.0}
FORCED = CONFIG.model_copy(update={"training": "forced", "forced_steps": 3, **NEVER_SOLVED})
POLISHED = FORCED.model_copy(update={"training": "forced_polish", "polish_steps": 2})


DIRECT = CONFIG.model_copy(update={"learned": "direct"})
NOTHING = CONFIG.model_copy(update={"learned": "nothing"})


@pytest.fixture(scope="module")
def run():
    client, meter = metered_client()
    reports, inversion = inverted(client, FORCED)
    return reports, inversion, client, meter


def start_network():
    network = build_mapping_network(tiny_spec(), FORCED)
    initialise(network, keyed_generator(0, "style_diffusion.inversion", 0))
    leave_values(network)
    return network


def test_networks_begin_with_the_text_s_own_values():
    state = state_of(start_network())
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    embeds = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(value_input(output_of(state, features), embeds), embeds)


def test_the_source_goes_back_exactly_as_it_came(run):
    _, inversion, client, _ = run
    assert torch.equal(inversion.state.chain, inversion.state.trajectory.flip(0))
    config = EditingConfig()
    plan = plan_prompts(tiny_tokenizer(), SOURCE, TARGET, config, CONFIG.num_steps)
    _, (output,) = finish(edit_cells(inversion, [EditCell(plan, config)], client))
    assert output.figures["reconstruction_error"] == 0
    assert torch.equal(output.reconstruction, client.decode(inversion.state.trajectory[0]))


def test_direct_inversion_learns_nothing_and_leaves_the_target_to_plain_ddim():
    """arXiv:2310.01506: the source is put back on its trajectory, the target is not touched."""
    client, meter = metered_client()
    _, direct = inverted(client, DIRECT)
    assert "unet_backward" not in meter.work
    assert torch.equal(direct.state.chain, direct.state.trajectory.flip(0))
    _, nothing = inverted(client, NOTHING)
    config = EditingConfig(tau_c=0.0, tau_s=0.0, local_blend=False)
    plan = plan_prompts(tiny_tokenizer(), SOURCE, TARGET, config, CONFIG.num_steps)
    outputs = [
        finish(edit_cells(inversion, [EditCell(plan, config)], client))[1][0]
        for inversion in (direct, nothing)
    ]
    # nothing is taken from the source here, so where it went cannot matter to the target
    torch.testing.assert_close(outputs[0].latents, outputs[1].latents)
    assert outputs[0].figures["reconstruction_error"] == 0
    assert outputs[1].figures["reconstruction_error"] > 0


def test_all_timesteps_learn_as_they_would_alone(run):
    """Each network is that of the chain's own training, started at the trajectory's latents."""
    _, inversion, client, _ = run
    config = FORCED.model_copy(update={"training": "exact", "inner_steps": 3, "inner_decay": 0.0})
    state = inversion.state
    for index in (0, CONFIG.num_steps - 1):
        before = fresh_state(
            trajectory=state.trajectory,
            image_tokens=state.image_tokens,
            source_embeds=state.source_embeds,
            uncond_embeds=state.uncond_embeds,
            map_size=4,
        )
        for level in range(1, index + 1):  # as if the chain had kept to the trajectory
            before = before.moved(state.trajectory[-1 - level], state.token_maps[level - 1])
        _, after = finish(train_timestep(before, start_network(), client, config))
        for name, value in after.networks[-1].items():
            torch.testing.assert_close(value, state.networks[index][name], atol=1e-5, rtol=1e-4)
        assert after.losses[-1] == pytest.approx(state.losses[index], rel=1e-4)


def test_a_round_is_one_exchange(run):
    """As many waits as optimiser steps of one timestep, however many timesteps there are."""
    reports, inversion, _, _ = run
    with_loss = [report for report in reports if report.loss is not None]
    assert len(with_loss) == FORCED.forced_steps
    assert inversion.state.executed == (FORCED.forced_steps,) * FORCED.num_steps


def test_losses_fall():
    config = FORCED.model_copy(update={"forced_steps": 12})
    _, long = inverted(metered_client()[0], config)
    _, short = inverted(metered_client()[0], FORCED.model_copy(update={"forced_steps": 1}))
    assert sum(long.state.losses) < sum(short.state.losses)


def test_solved_timesteps_leave_the_rounds():
    _, reference = inverted(metered_client()[0], FORCED)
    middle = sorted(reference.state.losses)[1]
    client, meter = metered_client()
    _, inversion = inverted(client, FORCED.model_copy(update={"stop_base": middle}))
    executed = inversion.state.executed
    assert min(executed) < FORCED.forced_steps == max(executed)
    assert meter.work["unet_backward"] == sum(executed)


def test_where_the_pinned_source_looks_is_what_its_values_make_it_look(run):
    _, inversion, _, _ = run
    maps = inversion.state.token_maps
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:2]))
    values = learned_values(inversion, inversion.state.source_embeds)
    assert (values[0] - inversion.state.source_embeds).abs().max() > 1e-3


def test_polish_goes_on_from_what_was_learned_at_once():
    """With steps too small to matter the chain keeps the networks; real ones change them."""
    client, _ = metered_client()
    still = POLISHED.model_copy(update={"learning_rate": 1e-12})
    _, inversion = inverted(client, still)
    for network in inversion.state.networks:
        for name, value in state_of(start_network()).items():
            torch.testing.assert_close(network[name], value, atol=1e-9, rtol=0)
    _, polished = inverted(client, POLISHED)
    assert polished.state.executed == (5,) * CONFIG.num_steps
    assert not torch.equal(polished.state.chain, polished.state.trajectory.flip(0))


@pytest.mark.parametrize("config", [FORCED, POLISHED], ids=["forced", "polished"])
def test_resumed_anywhere_it_is_the_same(config):
    reports, inversion = inverted(metered_client()[0], config)
    for report in reports:
        if report.checkpoint is None:
            continue
        stored = type(report.checkpoint).from_tensors(report.checkpoint.to_tensors())
        _, again = inverted(metered_client()[0], config, checkpoint=stored)
        expected = inversion.to_tensors()
        assert all(torch.equal(t, expected[n]) for n, t in again.to_tensors().items())
