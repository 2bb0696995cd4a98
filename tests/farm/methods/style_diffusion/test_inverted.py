import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from farm.errors import CorruptArtifactError
from farm.methods.style_diffusion.inverted import Inversion, InversionState, fresh_state
from tests.farm.methods.style_diffusion.runs import CONFIG, inverted, metered_client


@pytest.fixture(scope="module")
def inversion():
    return inverted(metered_client()[0])[1]


def test_an_inversion_survives_a_safetensors_file(inversion, tmp_path):
    path = tmp_path / "inversion.safetensors"
    save_file(inversion.to_tensors(), path, metadata=inversion.metadata())
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        back = Inversion.from_tensors(tensors, file.metadata())
    assert (back.prompt, back.config) == (inversion.prompt, CONFIG)
    assert back.state.losses == inversion.state.losses
    assert back.state.executed == inversion.state.executed
    expected = inversion.to_tensors()
    for name, tensor in back.to_tensors().items():
        assert torch.equal(tensor, expected[name])


def test_networks_are_stacked_by_timestep(inversion):
    stacked = inversion.to_tensors()["mapping_networks.conv_start.weight"]
    assert stacked.shape[0] == CONFIG.num_steps
    assert torch.equal(stacked[2], inversion.state.networks[2]["conv_start.weight"])


def test_a_state_without_networks_survives(inversion):
    state = inversion.state
    fresh = fresh_state(
        trajectory=state.trajectory,
        image_tokens=state.image_tokens,
        source_embeds=state.source_embeds,
        uncond_embeds=state.uncond_embeds,
        map_size=4,
    )
    back = InversionState.from_tensors(fresh.to_tensors())
    assert (back.index, back.networks, back.losses) == (0, (), ())
    assert torch.equal(back.latents, state.trajectory[-1])


def test_missing_parts_are_named(inversion):
    tensors = inversion.to_tensors()
    del tensors["chain"]
    with pytest.raises(CorruptArtifactError, match="'chain'"):
        InversionState.from_tensors(tensors)


@pytest.mark.parametrize("name", ["losses", "executed", "trajectory", "chain", "token_maps"])
def test_contradicting_parts_are_refused(inversion, name):
    tensors = inversion.to_tensors()
    tensors[name] = tensors[name][:-1]
    with pytest.raises(CorruptArtifactError, match="do not belong together"):
        InversionState.from_tensors(tensors)


@pytest.mark.parametrize("metadata", [{}, {"prompt": "a", "config": "{}x"}])
def test_unreadable_metadata_is_refused(inversion, metadata):
    with pytest.raises(CorruptArtifactError, match="prompt and configuration"):
        Inversion.from_tensors(inversion.to_tensors(), metadata)


def test_an_unfinished_inversion_is_refused(inversion):
    config = CONFIG.model_copy(update={"num_steps": 5}).model_dump_json()
    with pytest.raises(CorruptArtifactError, match="4 moves, but 5 timesteps"):
        Inversion.from_tensors(inversion.to_tensors(), {"prompt": "a", "config": config})
