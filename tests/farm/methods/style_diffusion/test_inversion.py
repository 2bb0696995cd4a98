import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from farm.diffusion import DiffusionClient, NoiseQuery
from farm.errors import EditDivergedError
from farm.methods.style_diffusion.conditions import learned_values
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.inverted import InversionState
from farm.methods.style_diffusion.mapping_network import output_of, value_input
from farm.methods.style_diffusion.sampling import reconstruct
from farm.samplers.ddim import NoiseSchedule, ddim_step
from tests.farm.methods.style_diffusion.runs import CONFIG, inverted, metered_client


@pytest.fixture(scope="module")
def run():
    client, meter = metered_client()
    reports, inversion = inverted(client)
    return reports, inversion, client, dict(meter.work)


def equal_states(left, right):
    left, right = left.to_tensors(), right.to_tensors()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_progress_counts_up_to_its_total(run):
    reports = run[0]
    assert [report.step for report in reports] == list(range(1, reports[0].total + 1))
    assert {report.total for report in reports} == {2 * CONFIG.num_steps + CONFIG.total_budget}
    checkpoints = [report.checkpoint for report in reports if report.checkpoint is not None]
    assert [checkpoint.index for checkpoint in checkpoints] == list(range(CONFIG.num_steps + 1))


def test_trajectory_starts_at_the_image_and_moves_towards_noise(run):
    _, inversion, client, _ = run
    schedule = NoiseSchedule.from_spec(client.spec)
    trajectory = inversion.state.trajectory
    for move, before, after in zip(
        schedule.inverting(CONFIG.num_steps), trajectory, trajectory[1:], strict=False
    ):
        noise = client.noise(NoiseQuery(before, move.timestep, inversion.state.source_embeds))
        # keeping maps materialises attention, so rounding may differ between the two passes
        torch.testing.assert_close(
            after, ddim_step(before, noise, move.alpha, move.alpha_to), atol=1e-5, rtol=1e-5
        )


def test_training_lowers_the_loss():
    config = CONFIG.model_copy(update={"inner_steps": 12, "stop_base": 0.0, "stop_slope": 0.0})
    reports, _ = inverted(metered_client()[0], config)
    first = [r.loss for r in reports if r.loss is not None and r.detail["timestep_index"] == 0]
    assert len(first) == 12
    assert first[-1] < 0.8 * first[0]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("value_form", ["modulated", "direct"])
def test_learned_values_reproduce_the_chain(prediction_type, value_form):
    """Sampling with the trained networks goes where training went."""
    client, _ = metered_client(prediction_type)
    _, inversion = inverted(client, CONFIG.model_copy(update={"value_form": value_form}))
    values = learned_values(inversion, inversion.state.source_embeds)
    found = reconstruct(inversion, client, values)
    # the same calls, the unconditional one in another batch: rounding over 4 moves
    torch.testing.assert_close(found, inversion.state.latents, atol=1e-4, rtol=1e-4)


def test_networks_start_where_the_last_one_ended():
    """With steps too small to matter all networks are the first."""
    config = CONFIG.model_copy(update={"learning_rate": 1e-12})
    _, inversion = inverted(metered_client()[0], config)
    first, *others = inversion.state.networks
    for other in others:
        for name, value in other.items():
            torch.testing.assert_close(value, first[name], atol=1e-10, rtol=0)


def test_a_solved_timestep_takes_the_step_whose_loss_was_low_enough():
    config = CONFIG.model_copy(update={"stop_base": math.inf})
    client, meter = metered_client()
    reports, inversion = inverted(client, config)
    assert inversion.state.executed == (1,) * config.num_steps
    assert meter.work["unet_backward"] == config.num_steps
    assert [r.step for r in reports] == sorted({r.step for r in reports})
    assert reports[-1].step == reports[-1].total
    first, second = inversion.state.networks[:2]
    assert not torch.equal(first["conv_end.weight"], second["conv_end.weight"])


def test_thresholds_rise_by_timestep():
    """Between the first's threshold and the last's, only later timesteps stop."""
    _, reference = inverted(metered_client()[0])
    loss = max(reference.state.losses)
    config = CONFIG.model_copy(update={"stop_base": 0.0, "stop_slope": 2 * loss})
    _, inversion = inverted(metered_client()[0], config)
    assert inversion.state.executed[0] == config.budget(0)
    assert inversion.state.executed[-1] == 1


def test_the_chain_moves_with_the_trained_network(run):
    """Latents after the first timestep, recomputed from the artifact alone."""
    reports, inversion, client, _ = run
    state = inversion.state
    after = next(r.checkpoint for r in reports if r.checkpoint is not None and r.checkpoint.index)
    move = NoiseSchedule.from_spec(client.spec).denoising(CONFIG.num_steps)[0]
    start = state.trajectory[-1]
    values = value_input(output_of(state.networks[0], state.image_tokens), state.source_embeds)
    uncond, cond = client.noises(
        [
            NoiseQuery(start, move.timestep, state.uncond_embeds),
            NoiseQuery(start, move.timestep, state.source_embeds, values),
        ]
    )
    noise = uncond + CONFIG.guidance_scale * (cond - uncond)
    expected = ddim_step(start, noise, move.alpha, move.alpha_to)
    torch.testing.assert_close(after.latents, expected, atol=1e-5, rtol=1e-5)  # one move


def test_resumed_anywhere_the_result_is_the_same_to_the_last_bit(run):
    reports, inversion, _, _ = run
    for report in reports:
        if report.checkpoint is None:
            continue
        stored = InversionState.from_tensors(report.checkpoint.to_tensors())
        _, resumed = inverted(metered_client()[0], checkpoint=stored)
        assert equal_states(resumed, inversion)


def test_where_the_source_was_looked_at_is_kept_for_every_timestep(run):
    _, inversion, client, _ = run
    state = inversion.state
    assert len(state.chain) == CONFIG.num_steps + 1
    assert torch.equal(state.chain[0], state.trajectory[-1])
    assert state.token_maps.shape == (CONFIG.num_steps, client.spec.map_size**2, client.spec.tokens)
    # attention of a pixel sums to 1
    torch.testing.assert_close(state.token_maps.sum(-1), torch.ones(state.token_maps.shape[:2]))


def test_results_depend_on_the_seed_alone(run):
    inversion = run[1]
    client, _ = metered_client()
    before = torch.get_rng_state()
    _, again = inverted(client)
    assert torch.equal(torch.get_rng_state(), before)  # nothing global is drawn from
    assert equal_states(again, inversion)
    _, other = inverted(client, seed=1)
    assert torch.equal(other.state.trajectory, inversion.state.trajectory)
    assert not equal_states(other, inversion)


def test_without_attention_loss_no_maps_are_needed():
    client, _ = metered_client()
    reports, _ = inverted(client, CONFIG.model_copy(update={"attention_weight": 0.0}))
    for report in reports:
        if report.loss is not None:
            assert report.detail["attention_loss"] == 0
            assert report.loss == pytest.approx(report.detail["latent_loss"], rel=1e-6)


class _Diverging:
    """An executor whose losses are not finite."""

    def __init__(self, executor):
        self._executor = executor

    def run_all(self, calls):
        answers = self._executor.run_all(calls)
        return [self._spoilt(answer) for answer in answers]

    def _spoilt(self, answer):
        if "loss" not in answer.arrays:
            return answer
        return replace(answer, arrays={**answer.arrays, "loss": np.asarray(np.nan)})


def test_a_loss_that_is_not_finite_ends_the_run_with_advice():
    client, meter = metered_client()
    diverging = DiffusionClient(_Diverging(meter), client.spec)
    with pytest.raises(EditDivergedError, match=r"nan at timestep 0, step 0.*learning_rate"):
        inverted(diverging, InversionConfig(num_steps=2, inner_steps=1))
