"""The life of an edit without Ray: stages shared, runs resumed, results committed once."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from farm.errors import (
    BackboneLostError,
    EditCancelledError,
    InvalidPromptError,
    InvalidRequestError,
    ModelSetError,
    UnknownWordError,
)
from farm.images import decode_image, encode_png
from farm.requests import parse_request
from farm.runner import load_output, load_result, prepare, run_edit
from farm.storage.checkpoints import save_checkpoint
from farm.storage.layout import stage_prefix
from farm.storage.leases import acquire
from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from tests.inline import LostAfter
from tests.tiny import tiny_networks, write_tiny_set

from farm.backbones.host import OperationHost  # isort: skip

PICTURE = encode_png(torch.rand(3, 24, 20, generator=torch.Generator().manual_seed(0)))
QUICK = {"num_steps": 3, "inner_steps": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-set")
    write_tiny_set(folder)
    return open_model_set(str(folder))


@pytest.fixture(scope="module")
def host():
    return OperationHost(tiny_networks())


def prepared(models, **changes):
    fields = {
        "image": "picture.png",
        "source_prompt": "a red ball",
        "target_prompt": "a blue ball",
        "model_set": str(models.folder),
        "parameters": QUICK,
        **changes,
    }
    return prepare(parse_request(fields), PICTURE, models)


class Locked:
    """Makes the inline host safe for the two threads of a test; notes operations and threads."""

    def __init__(self, host):
        self.host, self.lock, self.ops = host, threading.Lock(), []
        self.threads: set[int] = set()

    def run_all(self, calls):
        with self.lock:
            self.ops += [call.op for call in calls]
            self.threads.add(torch.get_num_threads())
            return self.host.run_all(calls)


@pytest.mark.parametrize(("deterministic", "threads"), [(True, 1), (False, 3)])
def test_a_deterministic_edit_computes_with_one_thread(models, host, store, deterministic, threads):
    executor, before = Locked(host), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run_edit(prepared(models, deterministic=deterministic), store, executor)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert executor.threads == {threads}


def test_an_edit_leaves_its_pictures_and_where_they_come_from(models, host, store):
    edit = prepared(models)
    result = run_edit(edit, store, host)
    picture = decode_image(load_output(store, result, "edited.png"))
    assert picture.image.shape == (3, 24, 20)  # the original's resolution
    provenance = result.provenance
    assert provenance.weights == models.digests
    assert not provenance.stage_reused
    # 3 steps: DDIM 3, unconditional 3, moves 3, optimiser steps 2 + 2 + 2, editing 2 x 3
    assert provenance.work["unet_forward"] == 3 + 3 + 3 + 6 + 6
    assert provenance.work["unet_backward"] == 6
    figures = json.loads(load_output(store, result, "metrics.json"))
    assert figures["provenance"]["seed"] == 0


def test_the_same_edit_twice_is_one_edit(models, host, store):
    edit = prepared(models)
    first = run_edit(edit, store, host)
    counting = Locked(host)
    again = run_edit(edit, store, counting)
    assert again.reused
    assert again.attempt == first.attempt
    assert counting.ops == []
    assert load_result(store, "default", edit.edit_id) == again


def test_a_second_target_costs_no_inversion(models, host, store):
    run_edit(prepared(models), store, host)
    counting = Locked(host)
    second = run_edit(prepared(models, target_prompt="a green ball"), store, counting)
    assert second.provenance.stage_reused
    assert set(counting.ops) == {"clip.embed_tokens", "unet.edit_noise", "vae.decode"}
    assert "unet_backward" not in second.provenance.work


def test_two_targets_at_once_share_one_inversion(models, host, store):
    counting = Locked(host)
    edits = [prepared(models, target_prompt=f"a {colour} ball") for colour in ("blue", "green")]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda edit: run_edit(edit, store, counting), edits))
    assert sorted(r.provenance.stage_reused for r in results) == [False, True]
    assert counting.ops.count("unet.value_loss") == 6


class Slow(Locked):
    """Takes a moment before each call, beside others; as a real network does."""

    def __init__(self, host, seconds):
        super().__init__(host)
        self.seconds = seconds

    def run_all(self, calls):
        time.sleep(self.seconds)
        return super().run_all(calls)


def test_a_first_step_longer_than_the_lease_does_not_make_two_take_turns(
    models, host, store, monkeypatch
):
    monkeypatch.setattr("farm.runner.running._LEASE_SECONDS", 0.3)
    monkeypatch.setattr("farm.runner.running._POLL_SECONDS", 0.02)
    counting = Slow(host, 0.15)  # four calls come before the first step
    edits = [prepared(models, target_prompt=f"a {colour} ball") for colour in ("blue", "green")]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda edit: run_edit(edit, store, counting), edits))
    assert sorted(r.provenance.stage_reused for r in results) == [False, True]
    assert counting.ops.count("unet.value_loss") == 6
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


def test_who_hangs_in_a_stage_loses_it_to_another(models, host, store, monkeypatch):
    monkeypatch.setattr("farm.runner.running._LEASE_SECONDS", 0.2)
    monkeypatch.setattr("farm.runner.running._POLL_SECONDS", 0.02)
    edit, there, go_on = prepared(models), threading.Event(), threading.Event()

    class Hangs(Locked):
        def run_all(self, calls):
            if not there.is_set():
                there.set()
                go_on.wait(30)
            return super().run_all(calls)

    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(run_edit, edit, store, Hangs(host), silent_seconds=0.05)
        there.wait(30)
        assert not run_edit(edit, store, host).reused
        go_on.set()
        assert hanging.result().reused


def test_a_lost_lease_leaves_a_checkpoint_for_whoever_goes_on(models, host, store, monkeypatch):
    monkeypatch.setattr("farm.runner.running._LEASE_SECONDS", 0.1)
    edit, saved = prepared(models), []

    def note(store, prefix, data, lease):
        saved.append(lease.epoch)
        save_checkpoint(store, prefix, data, lease)

    monkeypatch.setattr("farm.runner.running.save_checkpoint", note)
    target = stage_prefix("default", edit.stage_digest)

    def later():
        return time.time() + 1000

    def lose(progress):
        if progress.checkpoint is None or saved:
            return
        # another takes the lease over, and lets it go; a renewal may be quicker, so it tries again
        while (other := acquire(store, target, "other", ttl=1.0, clock=later)) is None:
            time.sleep(0.01)
        other.release()
        time.sleep(0.2)  # meanwhile the loss is found

    run_edit(edit, store, host, report=lose)
    assert saved[0] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"source_prompt": "a green ball"},
        {"parameters": {**QUICK, "inner_steps": 3}},
        {"deterministic": True},
    ],
)
def test_whatever_the_inversion_depends_on_changes_its_digest(models, change):
    assert prepared(models, **change).stage_digest != prepared(models).stage_digest


@pytest.mark.parametrize(
    "change", [{"parameters": {**QUICK, "tau_c": 0.1}}, {"target_word": "blue"}]
)
def test_what_only_editing_depends_on_keeps_the_inversion(models, change):
    one, other = prepared(models), prepared(models, **change)
    assert one.stage_digest == other.stage_digest
    assert one.edit_id != other.edit_id


@pytest.mark.parametrize("change", [{"priority": "interactive"}, {"id": "mine"}])
def test_what_does_not_change_the_result_does_not_change_its_id(models, change):
    assert prepared(models, **change).edit_id == prepared(models).edit_id


def test_an_interrupted_inversion_goes_on_and_gives_the_same_bits(
    models, host, store, tmp_path, monkeypatch
):
    monkeypatch.setattr("farm.runner.running._CHECKPOINT_SECONDS", 0.0)
    edit = prepared(models)
    # two embeddings, the image's tokens and latents, DDIM 3, and one whole timestep of 4 calls
    with pytest.raises(BackboneLostError):
        run_edit(edit, store, LostAfter(host, 4 + 3 + 4 + 1))
    counting = Locked(host)
    resumed = run_edit(edit, store, counting)
    assert counting.ops.count("unet.value_loss") == 4
    undisturbed = open_store(str(tmp_path / "other"))
    whole = run_edit(edit, undisturbed, host)
    assert load_output(store, resumed, "edited.png") == load_output(
        undisturbed, whole, "edited.png"
    )


def test_a_cancelled_edit_stops_between_steps_and_leaves_no_result(models, host, store):
    edit, steps = prepared(models), []
    with pytest.raises(EditCancelledError):
        run_edit(edit, store, host, report=steps.append, should_stop=lambda: len(steps) >= 4)
    assert len(steps) == 4
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]
    assert load_result(store, "default", edit.edit_id) is None
    assert not run_edit(edit, store, host).provenance.stage_reused  # and nobody is locked out


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"target_word": "cube"}, UnknownWordError, "cube"),
        ({"source_prompt": "  "}, InvalidRequestError, "blank"),
        ({"target_prompt": "a red ball"}, InvalidRequestError, "nothing to edit"),
        ({"parameters": {"tau_c": 1.5}}, InvalidRequestError, "tau_c"),
        ({"parameters": {"tau_x": 0.5}}, InvalidRequestError, "tau_x"),
        ({"method": "magic"}, InvalidRequestError, "method"),
        ({"sed": 1}, InvalidRequestError, "sed"),
        ({"target_prompt": "a blue ball " * 20}, InvalidPromptError, "tokens"),
    ],
)
def test_a_wrong_request_is_refused_before_any_network(models, change, error, says):
    with pytest.raises(error, match=says):
        prepared(models, **change)


def test_a_model_set_that_is_not_there_is_named():
    with pytest.raises(ModelSetError, match="nowhere"):
        open_model_set("nowhere")


def test_weights_that_differ_from_their_digest_are_found(models):
    models.verify()
    weights = models.folder / "clip" / "model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(ModelSetError, match="digest"):
            models.verify()
    finally:
        weights.write_bytes(before)
