"""EditInfinity through Ray: networks in the backbone, prompt and adapters in the trainers."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from actors.calls import results_of
from actors.edits import StoredEdit, load_host
from actors.farm_session import FarmSession, open_farm
from farm.backbones.host import OperationHost
from farm.images import encode_png
from farm.requests import parse_request
from farm.runner import PreparedEdit, load_output, prepare, run_edit
from farm.storage.local import LocalStore
from farm.zoo.model_sets import ModelSet
from tests.actors.conftest import SMALL
from tests.actors.scene_edits import WithModules
from tests.tiny_infinity import tiny_whole_networks, write_tiny_whole_set
from tests.tiny_sets import opened

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

TENANT = "default"
PICTURE = encode_png(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)))
QUICK = {
    "train_textembedding_iter": 3,
    "train_lora_iter": 3,
    "prompt_rows": 2,
    "lora_r": 2,
    "learning_rate": 0.05,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelSet:
    return opened(write_tiny_whole_set, tmp_path_factory)


@pytest.fixture(scope="module")
def farm(ray_session: None, models: ModelSet) -> Iterator[FarmSession]:
    with open_farm(partial(load_host, models), placement=SMALL) as session:
        yield session


def edits_of(models: ModelSet) -> list[PreparedEdit]:
    return [
        prepare(
            parse_request(
                {
                    "id": f"to-{colour}",
                    "method": "edit_infinity",
                    "image": "picture.png",
                    "source_prompt": "a red cat on the grass",
                    "target_prompt": f"a {colour} cat on the grass",
                    "target_word": "cat",
                    "deterministic": True,
                    "model_set": str(models.folder),
                    "parameters": QUICK,
                }
            ),
            PICTURE,
            models,
        )
        for colour in ("blue", "and")
    ]


def test_two_targets_at_once_cost_one_inversion_and_are_those_of_one_process(
    farm: FarmSession, models: ModelSet, tmp_path: Path
) -> None:
    edits = edits_of(models)
    store, other = LocalStore(tmp_path / "farm"), LocalStore(tmp_path / "here")
    before = farm.stats()[0].items_by_op.get("infinity.lora_loss", 0)
    entry = WithModules(StoredEdit(store, TENANT))
    answers = results_of([farm.submit(e.request.id or "", entry, e) for e in edits])
    assert farm.stats()[0].items_by_op["infinity.lora_loss"] - before == 3
    results, modules = zip(*answers, strict=True)
    assert not {"transformers", "diffusers", "timm"} & set.union(*modules)
    made = [name for result in results for name in result.provenance.stages_made]
    assert sorted(made) == ["attention", "codes", "lora", "prompt"]
    host = OperationHost(tiny_whole_networks())
    for edit, result in zip(edits, results, strict=True):
        alone = run_edit(edit, other, host)
        for name in ("edited.png", "mask.png", "adapter_model.safetensors"):
            assert load_output(store, result, name) == load_output(other, alone, name), name
