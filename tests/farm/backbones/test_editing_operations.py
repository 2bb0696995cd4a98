"""Edits of targets: what is taken of a source, when, and how often the source is computed."""

from typing import Any

import torch

from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.calls import Answer
from farm.diffusion import DiffusionClient, EditNoise, EditQuery, NoiseQuery
from tests.farm.backbones.queries import Recorder, edit_query, normal
from tests.tiny import TOKENS, tiny_networks


def edit_noise(client: DiffusionClient, query: EditQuery) -> EditNoise:
    return client.edit_noises([query])[0]


CLOSED = {
    "cross_alpha": torch.zeros(TOKENS),
    "self_active": False,
    "uncond_self_active": False,
}


def changed(query: EditQuery, **fields: Any) -> EditQuery:
    return EditQuery(**(vars(query) | fields))


def test_an_edit_without_editing_is_two_predictions(
    client: DiffusionClient, networks: Networks
) -> None:
    query = edit_query(0)
    found = edit_noise(client, changed(query, **CLOSED))
    uncond, cond = client.noises(
        [
            NoiseQuery(query.latents, query.timestep, query.uncond_embeds),
            NoiseQuery(query.latents, query.timestep, query.embeds, query.value_embeds),
        ]
    )
    torch.testing.assert_close(found.uncond, uncond, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.cond, cond, rtol=1e-5, atol=1e-5)
    assert len(networks.sources) == 0  # nothing of the source was needed


def test_self_windows_of_the_two_branches_are_apart(client: DiffusionClient) -> None:
    plain, prompted, unprompted = (
        edit_noise(client, changed(edit_query(0), **(CLOSED | opened)))
        for opened in ({}, {"self_active": True}, {"uncond_self_active": True})
    )
    torch.testing.assert_close(prompted.uncond, plain.uncond)
    torch.testing.assert_close(unprompted.cond, plain.cond)
    assert (prompted.cond - plain.cond).abs().max() > 0.01
    assert (unprompted.uncond - plain.uncond).abs().max() > 0.01


def test_scores_of_all_tokens_are_one_where_nothing_is_edited(client: DiffusionClient) -> None:
    """Attention of a pixel sums to 1, so the mean over layers and heads does."""
    query = edit_query(1)  # its cross window is closed
    found = edit_noise(client, changed(query, score_tokens=torch.ones(1, TOKENS)))
    assert found.scores is not None
    torch.testing.assert_close(found.scores, torch.ones(1, 4, 4))


def test_maps_are_there_only_where_somebody_asks(client: DiffusionClient) -> None:
    query = edit_query(0)
    with_maps, without = (
        edit_noise(client, changed(query, score_tokens=s)) for s in (query.score_tokens, None)
    )
    assert without.scores is None
    torch.testing.assert_close(without.cond, with_maps.cond, rtol=1e-5, atol=1e-5)


def test_what_a_source_shows_is_the_mean_of_its_maps(client: DiffusionClient) -> None:
    query = edit_query(1)
    shown = NoiseQuery(query.latents, query.timestep, query.embeds, query.value_embeds)
    (source,) = client.source_noises([shown])
    target = edit_noise(client, changed(query, **CLOSED, score_tokens=torch.eye(TOKENS)))
    assert target.scores is not None
    torch.testing.assert_close(source.maps.T, target.scores.flatten(1))
    torch.testing.assert_close(source.noise, client.noise(shown), rtol=1e-5, atol=1e-5)


def test_a_source_is_computed_once_for_all_its_targets(networks: Networks) -> None:
    """In one batch or one after the other, and not at all where the inversion left it."""
    rows: list[int] = []
    networks.unet.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    recorder = Recorder(OperationHost(networks))
    client = DiffusionClient(recorder, networks.spec)
    query = edit_query(0)
    others = [changed(query, latents=normal(item, 4, 8, 8)) for item in range(3)]
    client.edit_noises(others)
    assert rows == [1, 1, 2, 2, 2]  # one source, in two branches
    rows.clear()
    fresh = OperationHost(tiny_networks())
    outcomes = fresh.run_batch(recorder.calls)
    extra = [o.work["unet_forward"] for o in outcomes if isinstance(o, Answer)]
    assert extra == [4, 2, 2]  # whoever is first pays
    told = edit_query(2)  # without the prompt nothing is taken
    client.source_noises(
        [
            NoiseQuery(
                told.source.latents, told.timestep, told.source.embeds, told.source.value_embeds
            )
        ]
    )
    rows.clear()
    client.edit_noises([told])
    assert rows == [2]


def test_a_forgotten_source_is_the_same_when_computed_again(networks: Networks) -> None:
    """To the last bit, though once it was asked for its maps, and once not."""
    query = changed(edit_query(0), uncond_self_active=False)
    row = query.source
    asked = NoiseQuery(row.latents, query.timestep, row.embeds, row.value_embeds)
    client = DiffusionClient(OperationHost(networks), networks.spec, alone=True)
    client.source_noises([asked])
    known = edit_noise(client, query)
    again = edit_noise(
        DiffusionClient(OperationHost(tiny_networks()), networks.spec, alone=True), query
    )
    assert torch.equal(known.cond, again.cond)
    assert torch.equal(known.uncond, again.uncond)


def test_dropped_caches_change_no_result(networks: Networks) -> None:
    host = OperationHost(networks)
    client = DiffusionClient(host, networks.spec, alone=True)
    query = edit_query(0)
    known = edit_noise(client, query)
    room, kept = host.promised_bytes(), networks.sources.bytes + networks.maps.bytes
    assert len(networks.sources) == 2
    assert host.make_room()
    assert host.promised_bytes() == room + kept
    assert not host.make_room()
    assert len(networks.sources) == networks.sources.bytes == 0
    again = edit_noise(client, query)
    assert torch.equal(known.cond, again.cond)
    assert torch.equal(known.uncond, again.uncond)
    assert len(networks.sources) == 2


def test_what_was_computed_in_company_is_not_taken_by_who_is_alone(networks: Networks) -> None:
    query = edit_query(0)
    host = OperationHost(networks)
    edit_noise(DiffusionClient(host, networks.spec), query)
    misses = networks.sources.misses
    edit_noise(DiffusionClient(host, networks.spec, alone=True), query)
    assert networks.sources.misses == misses + 2
