"""Null-text and text inversion against autograd through the network, and in use."""

import pytest
import torch

from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.conditions import conditions_of
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.editing import edit_cells
from farm.methods.style_diffusion.plan import plan_prompts
from farm.methods.style_diffusion.sampling import retrace
from farm.samplers.ddim import NoiseSchedule, ddim_step
from tests.farm.methods.style_diffusion.runs import CONFIG, SOURCE, TARGET, inverted, metered_client
from tests.stages import finish
from tests.tiny import tiny_networks, tiny_spec, tiny_tokenizer

STEPS = {"context_steps": 2, "stop_base": 0.0, "stop_slope": 0.0}


def config_of(learned):
    return CONFIG.model_copy(update={"learned": learned, **STEPS})


@pytest.fixture(scope="module", params=["null_text", "text"])
def run(request):
    client, _ = metered_client()
    reports, inversion = inverted(client, config_of(request.param))
    return reports, inversion, client


def by_autograd(inversion, embeds, timesteps):
    """What the first timesteps learn, by autograd through the network itself."""
    networks = tiny_networks(tiny_spec())
    config, state = inversion.config, inversion.state
    is_null = config.learned == "null_text"
    latents = state.trajectory[-1]
    moves = NoiseSchedule.from_spec(networks.spec).denoising(config.num_steps)

    def predict(text):
        return networks.unet(latents[None], torch.tensor([move.timestep]), text[None])[0]

    leaf = embeds.clone().requires_grad_()
    for index, move in enumerate(moves[:timesteps]):
        adam = torch.optim.Adam([leaf], lr=config.learning_rate_at(index))
        for inner in range(config.context_steps + 1):
            uncond = predict(leaf if is_null else state.uncond_embeds)
            cond = predict(state.source_embeds if is_null else leaf)
            noise = uncond + config.guidance_scale * (cond - uncond)
            moved = ddim_step(latents, noise, move.alpha, move.alpha_to)
            if inner == config.context_steps:
                break
            target = state.trajectory[config.num_steps - 1 - index]
            adam.zero_grad()
            torch.nn.functional.mse_loss(moved, target).backward()
            adam.step()
        yield leaf.detach().clone()
        latents = moved.detach()


def test_null_text_is_plain_autograd(run):
    """For text inversion too. Adam's first steps are signs of gradients, so nothing is amplified:
    two steps of a timestep, then the next one from there."""
    _, inversion, _ = run
    state = inversion.state
    is_null = inversion.config.learned == "null_text"
    first = state.uncond_embeds if is_null else state.source_embeds
    for index, expected in enumerate(by_autograd(inversion, first, 2)):
        found = state.contexts[index]
        # a sign may turn where a gradient is nearly nothing: rare, and the rest agrees
        wrong = ~torch.isclose(found, expected, atol=1e-4, rtol=1e-3)
        assert wrong.float().mean() < 0.02
        assert (found - first).abs().mean() > 1e-3


def test_the_chain_is_where_the_learned_embeddings_lead(run):
    _, inversion, client = run
    again = retrace(inversion, client)
    torch.testing.assert_close(again.state.chain, inversion.state.chain, atol=1e-4, rtol=1e-4)
    maps = again.state.token_maps
    torch.testing.assert_close(maps, inversion.state.token_maps, atol=1e-4, rtol=1e-4)


def test_more_steps_come_nearer_to_the_trajectory():
    """The error of the whole chain falls as embeddings are trained longer."""
    errors = []
    for steps in (1, 12):
        config = config_of("null_text").model_copy(update={"context_steps": steps})
        _, inversion = inverted(metered_client()[0], config)
        gap = inversion.state.chain.flip(0) - inversion.state.trajectory
        errors.append(gap.square().mean().item())
    assert errors[1] < 0.9 * errors[0]


def test_text_replaces_the_source_s_context_alone(run):
    _, inversion, _ = run
    state, conditions = inversion.state, conditions_of(inversion)
    plain_uncond, plain_source = (
        embeds.expand_as(state.contexts) for embeds in (state.uncond_embeds, state.source_embeds)
    )
    if inversion.config.learned == "text":
        assert torch.equal(conditions.source, state.contexts)
        assert torch.equal(conditions.source_values, state.contexts)
        assert torch.equal(conditions.uncond, plain_uncond)
    else:
        assert torch.equal(conditions.uncond, state.contexts)
        assert torch.equal(conditions.source, plain_source)
        assert torch.equal(conditions.source_values, plain_source)


def test_the_target_reads_its_own_prompt(run):
    """A source that is its own target comes back only where the target reads what it reads."""
    _, inversion, client = run
    everything = {"tau_v": 1.0, "tau_c": 1.0, "tau_s": 1.0, "tau_u": 1.0, "local_blend": False}
    config = EditingConfig(**everything)
    plan = plan_prompts(tiny_tokenizer(), SOURCE, SOURCE, config, CONFIG.num_steps)
    _, (output,) = finish(edit_cells(inversion, [EditCell(plan, config)], client))
    same = torch.allclose(output.latents, inversion.state.latents, atol=1e-4, rtol=1e-4)
    assert same == (inversion.config.learned == "null_text")


def test_resumed_anywhere_it_is_the_same(run):
    reports, inversion, _ = run
    for report in reports:
        if report.checkpoint is None:
            continue
        _, again = inverted(metered_client()[0], inversion.config, checkpoint=report.checkpoint)
        assert torch.equal(again.state.contexts, inversion.state.contexts)
        assert torch.equal(again.state.chain, inversion.state.chain)


def test_an_edit_runs_on_what_was_learned(run):
    _, inversion, client = run
    config = EditingConfig(tau_u=0.5)
    plan = plan_prompts(tiny_tokenizer(), SOURCE, TARGET, config, CONFIG.num_steps)
    _, (output,) = finish(edit_cells(inversion, [EditCell(plan, config)], client))
    assert output.mask is not None
    assert output.figures["latent_change"] > 0.01
