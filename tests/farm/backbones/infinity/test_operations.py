from dataclasses import replace

import numpy as np
import pytest
import torch

from farm.backbones.infinity.lora import LoraShape
from farm.backbones.infinity.packing import pack_bits, packed_length
from farm.backbones.infinity.quantiser import quantise
from farm.calls import Call
from farm.errors import InvalidRequestError
from tests.tiny_infinity import CONFIG, SCHEDULE, picture, text_rows, tiny_executor

ONE_OP = 1e-5  # definitions.md, "Equal": single operations in single precision, relative
BASE = {"schedule": "own"}
SHAPE = LoraShape(CONFIG.depth, CONFIG.width, CONFIG.hidden, 2)
BYTES = packed_length(SCHEDULE, 4)


@pytest.fixture(scope="module")
def executor():
    return tiny_executor()


def features(seed):
    return torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(seed))


def bits(seed):
    return pack_bits(quantise(features(seed)[None], SCHEDULE).bits)[0].numpy()


def number(value):
    return np.asarray(value, dtype=np.float32)


def training(seed, *, dropped=False):
    flips = np.random.default_rng(seed).integers(0, 2, BYTES, dtype=np.uint8)
    return {
        "text": text_rows(5, seed).numpy(),
        "features": features(seed).numpy(),
        "flips": flips,
        "branch_scale": np.ones((CONFIG.depth, 2), dtype=np.float32),
        "dropped": np.asarray(dropped),
        "divergence_weight": number(2e-3),
    }


def lora(seed):
    flat = torch.randn(SHAPE.size, generator=torch.Generator().manual_seed(seed)) * 0.2
    return {"lora": flat.numpy(), "lora_scale": number(8.0)}


def prompt_call(seed, **changes):
    rows = text_rows(2, 50 + seed).numpy() * 0.1
    return Call("infinity.prompt_loss", training(seed) | {"prompt": rows} | changes, BASE)


def lora_call(seed, rate=0.0):
    arrays = training(seed) | lora(seed) | {"dropout_seed": np.asarray(seed, dtype=np.int64)}
    return Call("infinity.lora_loss", arrays, {**BASE, "rank": 2, "dropout": rate})


def edit_call(seed, *, guided=True, **static):
    arrays = {
        "text": text_rows(5, seed).numpy(),
        "bits": bits(seed),
        "weight": np.tile(np.array([1, 1, 0.5, 0], dtype=np.float32), (4, 1)),
        "guidance": np.full(3, 3.0 if guided else 1.0, dtype=np.float32),
        "temperature": np.full(3, 0.5, dtype=np.float32),
        "seed": np.asarray(seed, dtype=np.int64),
        **lora(seed),
    }
    static = {**BASE, "guided": guided, "rank": 2, "top_k": 900, "top_p": 0.97, **static}
    return Call("infinity.edit", arrays, static)


def odds_call(seed, **static):
    """Of the source of `edit_call`, under a text of its own."""
    edit = edit_call(seed, **static)
    taken = ("bits", "guidance", "temperature", *lora(seed))
    arrays = {"text": text_rows(6, 90 + seed).numpy()} | {n: edit.arrays[n] for n in taken}
    kept = {n: edit.static[n] for n in edit.static if not n.startswith("top_")}
    return Call("infinity.log_odds", arrays, kept)


def tied_call(seed):
    """An edit that is drawn with odds."""
    edit = edit_call(seed)
    shape = (SCHEDULE.num_tokens, 4)
    odds = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return Call(edit.op, edit.arrays | {"log_odds": odds}, edit.static)


def attention_call(seed):
    span = np.array([0, 1, 1, 0, 0], dtype=np.float32)
    arrays = {"text": text_rows(5, seed).numpy(), "span": span, "bits": bits(seed)}
    return Call("infinity.word_attention", arrays, {**BASE, "map_height": 8, "map_width": 8})


def accuracy_call(seed):
    arrays = {"text": text_rows(5, seed).numpy(), "bits": bits(seed), **lora(seed)}
    return Call("infinity.bit_accuracy", arrays, {**BASE, "rank": 2})


def encode_call(seed):
    return Call("bsq.encode", {"image": picture(seed).numpy()}, BASE)


def decode_call(seed):
    return Call("bsq.decode", {"bits": bits(seed)}, BASE)


@pytest.mark.parametrize(
    "call",
    [
        prompt_call,
        lora_call,
        lambda seed: lora_call(seed, 0.1),
        edit_call,
        lambda seed: edit_call(seed, insertion=-1),
        tied_call,
        odds_call,
        attention_call,
        accuracy_call,
        encode_call,
        decode_call,
    ],
    ids=[
        "prompt",
        "lora",
        "dropout",
        "edit",
        "insertion",
        "tied",
        "log_odds",
        "map",
        "accuracy",
        "encode",
        "decode",
    ],
)
def test_a_batch_of_different_edits_gives_what_each_gives_alone(executor, call):
    calls = [call(seed) for seed in (1, 2, 3)]
    together = executor.run_batch(calls)
    for one, batched in zip(calls, together, strict=True):
        (alone,) = executor.run_all([one])
        assert alone.work == batched.work
        for name, expected in alone.arrays.items():
            found = batched.arrays[name]
            if expected.dtype == np.uint8:
                assert np.array_equal(found, expected)
            else:
                scale = np.abs(expected).max()
                np.testing.assert_allclose(found, expected, rtol=0, atol=ONE_OP * scale)


@pytest.mark.parametrize(("call", "leaf"), [(prompt_call, "prompt"), (lora_call, "lora")])
def test_gradients_are_the_slopes_of_the_loss(executor, call, leaf):
    """Central differences along a few directions, in single precision."""
    plain = call(1)
    (answer,) = executor.run_all([plain])
    gradient = answer.arrays[f"grad_{leaf}"]
    generator = np.random.default_rng(0)
    for _ in range(3):
        direction = generator.standard_normal(gradient.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        direction = direction + gradient / np.linalg.norm(gradient)
        step = np.float32(2e-3)
        ends = [
            Call(plain.op, plain.arrays | {leaf: plain.arrays[leaf] + s * direction}, plain.static)
            for s in (step, -step)
        ]
        up, down = (float(a.arrays["loss"]) for a in executor.run_all(ends))
        slope = (up - down) / (2 * float(step))
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.02)


def test_no_frozen_weight_gets_a_gradient(executor):
    executor.run_all([prompt_call(1), lora_call(1)])
    for module in executor.networks.modules().values():
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())


def test_work_is_counted(executor):
    works = {
        "prompt": executor.run_all([prompt_call(1)])[0].work,
        "lora": executor.run_all([lora_call(1)])[0].work,
        "edit": executor.run_all([edit_call(1)])[0].work,
        "alone": executor.run_all([edit_call(1, guided=False)])[0].work,
        "map": executor.run_all([attention_call(1)])[0].work,
    }
    step = {"infinity_forward": 1, "infinity_backward": 1}
    assert works == {
        "prompt": step,
        "lora": step,
        "edit": {"infinity_forward": 2, "bsq_decode": 1},
        "alone": {"infinity_forward": 1, "bsq_decode": 1},
        "map": {"infinity_forward": 1},
    }


def test_a_dropped_text_teaches_the_prompt_nothing(executor):
    (answer,) = executor.run_all([prompt_call(1, dropped=np.asarray(True))])
    assert not answer.arrays["grad_prompt"].any()
    other = prompt_call(2).arrays["text"]
    (again,) = executor.run_all([prompt_call(1, dropped=np.asarray(True), text=other)])
    assert answer.arrays["loss"] == again.arrays["loss"]


def test_the_divergence_is_added_by_its_weight(executor):
    (with_it,) = executor.run_all([prompt_call(1)])
    (without,) = executor.run_all([prompt_call(1, divergence_weight=number(0))])
    expected = float(without.arrays["loss"]) + 2e-3 * float(with_it.arrays["divergence"])
    assert float(with_it.arrays["loss"]) == pytest.approx(expected, rel=1e-6)
    assert float(with_it.arrays["weighted"]) == pytest.approx(float(without.arrays["loss"]))


def test_recomputing_changes_nothing_but_memory(executor):
    saving = tiny_executor()
    saving.networks = replace(saving.networks, recompute=True)
    for call in (prompt_call(1), lora_call(1, 0.3)):
        (plain,), (saved,) = executor.run_all([call]), saving.run_all([call])
        for name, expected in plain.arrays.items():
            assert np.array_equal(saved.arrays[name], expected)


def test_an_encoded_picture_is_decoded_from_its_bits(executor):
    (encoded,) = executor.run_all([encode_call(1)])
    found = quantise(torch.from_numpy(encoded.arrays["features"])[None], SCHEDULE)
    assert np.array_equal(encoded.arrays["bits"], pack_bits(found.bits)[0].numpy())
    (decoded,) = executor.run_all([Call("bsq.decode", {"bits": encoded.arrays["bits"]}, BASE)])
    with torch.no_grad():
        expected = executor.networks.vae.decode(found.codes)[0]
    np.testing.assert_allclose(decoded.arrays["image"], expected.numpy(), rtol=0, atol=1e-6)


def test_a_map_is_a_share_of_the_attention(executor):
    """Over spans that together are all rows, maps weighted by their rows sum to one."""
    total = 0
    for row in range(5):
        call = attention_call(1)
        span = np.eye(5, dtype=np.float32)[row]
        (answer,) = executor.run_all([Call(call.op, call.arrays | {"span": span}, call.static)])
        total = total + answer.arrays["map"]
    np.testing.assert_allclose(total, np.ones((8, 8)), rtol=1e-5)


def test_a_negative_prompt_takes_the_place_of_no_text(executor):
    plain = edit_call(1)
    negative = text_rows(3, 77).numpy()
    other = Call(plain.op, plain.arrays | {"negative": negative}, plain.static)
    uncond = executor.networks.transformer.unconditional(5).numpy()
    same = Call(plain.op, plain.arrays | {"negative": uncond}, plain.static)
    images = [a.arrays["image"] for a in executor.run_all([plain, other, same])]
    assert np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[1])


@pytest.mark.parametrize("static", [{}, {"guided": False}, {"insertion": -1}], ids=str)
def test_with_the_odds_of_its_own_text_an_edit_gives_its_source(executor, static):
    """Nothing is kept and a negative prompt is there: the noise alone says it."""
    asked = odds_call(1, **static)
    negative = {"negative": text_rows(3, 77).numpy()}
    (odds,) = executor.run_all([Call(asked.op, asked.arrays | negative, asked.static)])
    edit = edit_call(1, top_p=0.0, **static)
    free = np.zeros((4, 4), dtype=np.float32)
    arrays = edit.arrays | {"text": asked.arrays["text"], "weight": free} | negative
    tied = Call(edit.op, arrays | {"log_odds": odds.arrays["log_odds"]}, edit.static)
    found = executor.run_all([tied, Call(edit.op, arrays, edit.static)])
    assert np.array_equal(found[0].arrays["bits"], bits(1))
    assert not np.array_equal(found[1].arrays["bits"], bits(1))


def test_what_does_not_fit_is_refused(executor):
    wrong = {
        "19 pixels": Call("bsq.encode", {"image": picture(1, 19, 16).numpy()}, BASE),
        "expected 11 for 4 bits": Call("bsq.decode", {"bits": np.zeros(4, dtype=np.uint8)}, BASE),
        "schedule 'own' alone": Call("bsq.decode", {"bits": bits(1)}, {"schedule": "1.000/1M"}),
        "adapters of": Call("infinity.lora_loss", lora_call(1).arrays, {**BASE, "rank": 3}),
        "found log odds of": Call(
            "infinity.edit",
            edit_call(1).arrays | {"log_odds": np.zeros((3, 4), np.float32)},
            edit_call(1).static,
        ),
        "the model takes 24": prompt_call(1, prompt=text_rows(20, 1).numpy()),
    }
    for message, call in wrong.items():
        with pytest.raises(InvalidRequestError, match=message.replace("19 pixels", r"\(19, 16\)")):
            executor.run_all([call])
