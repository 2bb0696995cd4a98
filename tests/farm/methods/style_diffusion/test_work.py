"""What is planned is what is counted, whatever is learned and however edits share."""

import itertools

import pytest

from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.config import EditingConfig, InversionConfig, paper
from farm.methods.style_diffusion.editing import edit_cells
from farm.methods.style_diffusion.plan import plan_prompts
from farm.methods.style_diffusion.work import planned_edit, planned_inversion
from tests.farm.methods.style_diffusion.runs import CONFIG, SOURCE, TARGET, inverted, metered_client
from tests.stages import finish
from tests.tiny import tiny_tokenizer

RELEASED_FORWARDS = 5
"""Of one edit by the released program, for each timestep: the inversion again, then four rows."""

WAYS = {
    "exact": {},
    "exact without attention": {"attention_weight": 0.0},
    "forced": {"training": "forced"},
    "polished": {"training": "forced_polish", "polish_steps": 2},
    "null text": {"learned": "null_text", "context_steps": 2},
    "text": {"learned": "text", "context_steps": 2},
    "nothing": {"learned": "nothing"},
    "direct": {"learned": "direct"},
    "generated": {"learned": "nothing", "generated": True},
}
NEVER_SOLVED = {"stop_base": 0.0, "stop_slope": 0.0}


def cell(num_steps=CONFIG.num_steps, target=TARGET, **config):
    editing = EditingConfig(**config)
    return EditCell(plan_prompts(tiny_tokenizer(), SOURCE, target, editing, num_steps), editing)


@pytest.mark.parametrize("way", WAYS)
def test_planned_is_counted(way):
    """The inversion, an edit right after it, and one where everything was forgotten."""
    config = CONFIG.model_copy(update=WAYS[way] | NEVER_SOLVED)
    client, meter = metered_client()
    reports, inversion = inverted(client, config)
    assert meter.work == planned_inversion(config)
    assert reports[-1].step == reports[-1].total == config.total_progress
    steps = [report.step for report in reports]
    assert steps == sorted(steps)
    cells = [cell(tau_u=0.8)]
    for free_known in (False, True):
        meter.work.clear()
        finish(edit_cells(inversion, cells, client))
        assert meter.work == planned_edit(cells, CONFIG.num_steps, free_known=free_known)
    client, meter = metered_client()
    finish(edit_cells(inversion, cells, client))
    assert meter.work == planned_edit(cells, CONFIG.num_steps, prompted_known=False)


def test_an_exact_inversion_is_ddim_and_for_each_timestep_two_branches_and_the_budget():
    assert planned_inversion(CONFIG) == {
        "text_forward": 2,
        "image_forward": 1,
        "vae_encode": 1,
        "unet_forward": 3 * CONFIG.num_steps + CONFIG.total_budget,
        "unet_backward": CONFIG.total_budget,
    }


GRIDS = {
    "windows": [cell(tau_s=tau) for tau in (0.0, 0.5, 1.0)],
    "all four": [
        cell(tau_v=v, tau_c=c, tau_s=s, tau_u=u)
        for v, c, s, u in itertools.product((0.25, 0.75), repeat=4)
    ],
    "targets": [cell(target=f"a {colour} dog", tau_u=0.5) for colour in ("blue", "green", "red")],
    "blends": [cell(blend_threshold=t) for t in (0.2, 0.8)] + [cell(local_blend=False)],
    "the same twice": [cell(), cell()],
    "nothing taken": [cell(tau_c=0.0, tau_s=0.0)],
}


@pytest.mark.parametrize("grid", GRIDS)
def test_a_grid_computes_once_what_its_edits_share(grid):
    client, meter = metered_client()
    _, inversion = inverted(client)
    meter.work.clear()
    cells = GRIDS[grid]
    finish(edit_cells(inversion, cells, client))
    planned = planned_edit(cells, CONFIG.num_steps)
    assert meter.work == planned
    apart = sum(planned_edit([c], CONFIG.num_steps)["unet_forward"] for c in cells)
    assert planned["unet_forward"] <= apart
    if len(cells) > 1 and grid != "targets":
        assert planned["unet_forward"] < apart


def test_identical_edits_cost_one():
    one, two = (planned_edit([cell()] * count, CONFIG.num_steps) for count in (1, 2))
    assert one == two
    assert one["unet_forward"] == 2 * CONFIG.num_steps


@pytest.mark.parametrize("num_steps", [20, 30, 50])
@pytest.mark.parametrize(
    "taus",
    [
        {},
        {"tau_v": 0.6, "tau_c": 0.6, "tau_s": 0.8, "tau_u": 0.5},  # the program's command line
        {"tau_v": 1.0, "tau_c": 1.0, "tau_s": 1.0, "tau_u": 0.5},
    ],
)
def test_an_edit_of_an_inverted_image_costs_at_most_half_of_the_reference(num_steps, taus):
    """Of a source that the far side remembers from its inversion, of no earlier edit."""
    plan = cell(num_steps, **paper().editing.model_dump(include=set(taus)) | taus)
    found = planned_edit([plan], num_steps)["unet_forward"]
    assert found <= RELEASED_FORWARDS * num_steps / 2


def test_an_early_stop_only_saves():
    config = InversionConfig(num_steps=3, inner_steps=3, stop_base=1e9)
    client, meter = metered_client()
    _, inversion = inverted(client, config)
    planned = planned_inversion(config)
    saved = config.total_budget - sum(inversion.state.executed)
    assert saved == config.total_budget - 3
    assert meter.work["unet_forward"] == planned["unet_forward"] - saved
    assert meter.work["unet_backward"] == planned["unet_backward"] - saved
