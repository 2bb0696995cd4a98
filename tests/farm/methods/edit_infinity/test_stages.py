"""All stages on tiny networks: what they give, what they cost, and what a second edit reuses."""

from collections import Counter

import pytest
import torch

from farm.errors import InvalidRequestError
from farm.methods.edit_infinity.attention import WordAttention
from farm.methods.edit_infinity.codes import SourceCodes
from farm.methods.edit_infinity.framing import frame_of
from farm.methods.edit_infinity.lora import LearnedLora
from farm.methods.edit_infinity.plan import ATTENTION, CODES, LORA, PROMPT
from farm.methods.edit_infinity.prompt import LearnedPrompt
from farm.methods.edit_infinity.region import from_attention, from_mask, nothing, whole
from farm.methods.edit_infinity.work import EDIT, planned_work
from tests.farm.methods.edit_infinity.runs import SOURCE, TARGET, codes_of, session, small
from tests.stages import finish
from tests.tiny_infinity import SCHEDULE, metered_client


class Edit:
    """A whole edit, stage by stage, with the work of each."""

    def __init__(self, config=None, *, mask=None, stored=None, seed=0, **changes):
        self.session, self.meter = session(config, seed=seed, mask=mask is not None, **changes)
        self.config, self.plan = self.session.config, self.session.plan
        self.stored = {} if stored is None else dict(stored)
        self.work, self.reports = {}, {}
        for name in self.plan.makes:
            if name not in self.stored:
                self.stored[name] = self.run(name, self.stage(name))
        self.region = self.region_of(mask)
        self.output = self.run(
            EDIT,
            self.session.edit_stage(self.stored[CODES], self.region, *self.learned),
        )

    def stage(self, name):
        if name == CODES:
            return stage_codes(self.session.client)
        codes = self.stored[CODES]
        return {
            PROMPT: lambda: self.session.prompt_stage(codes),
            LORA: lambda: self.session.lora_stage(codes, self.stored.get(PROMPT)),
            ATTENTION: lambda: self.session.attention_stage(codes),
        }[name]()

    @property
    def learned(self):
        return self.stored.get(PROMPT), self.stored.get(LORA)

    def run(self, name, stage):
        before = dict(self.meter.work)
        self.reports[name], result = finish(stage)
        used = {n: v - before.get(n, 0) for n, v in self.meter.work.items()}
        self.work[name] = {n: v for n, v in used.items() if v}
        return result

    def region_of(self, mask):
        if self.plan.region == "whole":
            return whole(SCHEDULE)
        if self.plan.region == "mask":
            frame = frame_of(*mask.shape[-2:], SCHEDULE.image_size)
            size = tuple(mask.shape[-2:])
            return from_mask(mask, frame, size, SCHEDULE, self.config.editing)
        return from_attention(self.stored[ATTENTION].map, SCHEDULE, self.config.editing)


def stage_codes(client):
    codes = codes_of(client)
    yield from ()
    return codes


def left_half():
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    return mask


CASES = {
    "whole": {"word": None},
    "mask": {"word": None, "mask": left_half()},
    "word": {},
    "attention": {"config": small(infer_function=1)},
    "text only": {"config": small(use_lora=False, train_lora=False)},
    "adapters only": {
        "config": small(
            use_concat_embedding=False, use_textembedding=False, train_textembedding=False
        )
    },
    "neither": {
        "config": small(
            use_concat_embedding=False,
            use_textembedding=False,
            train_textembedding=False,
            use_lora=False,
            train_lora=False,
        )
    },
    "negative": {"config": small(negative_prompt="a dog")},
    "the source's noise": {"config": small(source_noise=True)},
    "the source's noise, unguided, plain": {
        "config": small(source_noise=True, guidance=1.0, use_concat_embedding=False)
    },
    "unguided": {"config": small(guidance=1.0)},
    "released counts": {"config": small(off_by_one=True)},
    "no biases": {"config": small(attention_bias=False)},
}


@pytest.mark.parametrize("case", CASES)
def test_an_edit_costs_what_is_planned(case):
    edit = Edit(**CASES[case])
    planned = planned_work(edit.plan, edit.config)
    assert edit.work == planned
    assert edit.meter.work == sum((Counter(units) for units in planned.values()), Counter())
    for name in edit.plan.makes:
        reports = edit.reports[name]
        if reports:
            assert [r.step for r in reports] == list(range(1, reports[-1].total + 1))
    assert edit.output.image.shape == (3, 16, 16)
    assert edit.output.image.min() >= 0
    assert edit.output.image.max() <= 1


def assert_all_differ(images):
    for number, one in enumerate(images):
        for other in range(number):
            assert not torch.equal(one, images[other]), (number, other)


def test_each_switch_changes_the_edit():
    """Where everything may change and learning is fast, no switch is without effect."""
    off = {"use_concat_embedding": False, "train_textembedding": False, "use_textembedding": False}
    plain = {"use_lora": False, "train_lora": False}
    switches = [
        {},
        plain,
        off,
        {"use_concat_embedding": False},
        {"use_textembedding": False},
        off | plain,
        {"guidance": 1.0},
        {"attention_bias": False},
        {"negative_prompt": "a dog"},
        {"top_k": 1},
        {"cfg_insertion": -1},
        {"source_noise": True},
        {"source_noise": True, "cfg_insertion": -1},
        {"use_lora_iter": 2},
    ]
    configs = [small(learning_rate=0.1, **changes) for changes in switches]
    assert_all_differ([Edit(config, word=None).output.image for config in configs])


def test_the_iteration_that_is_asked_for_follows_the_target():
    edit = Edit(word=None)
    config = small(use_embedding_iter=2)
    again = Edit(config, word=None, stored=edit.stored)
    asked = []
    client = again.session.client
    original = client.edit_all
    client.edit_all = lambda queries, layout: asked.extend(queries) or original(queries, layout)
    finish(again.session.edit_stage(again.stored[CODES], again.region, *again.learned))
    (query,) = asked
    assert torch.equal(query.text[-2:], edit.stored[PROMPT].rows(2))
    assert len(query.text) == len(again.plan.target.ids) + 2


@pytest.mark.parametrize("learned", [True, False])
def test_to_the_source_prompt_the_sources_noise_gives_the_source(learned):
    """The rows that follow the target follow the source, too."""
    config = small(source_noise=True, top_p=0.0, use_concat_embedding=learned, learning_rate=0.1)
    edit = Edit(config, word=None, target=SOURCE)
    assert edit.output.figures["changed_bits"] == 0
    kept = edit.stored[CODES].image  # in whole 255ths
    torch.testing.assert_close(edit.output.image, kept, rtol=0, atol=0.5 / 255 + 1e-6)
    free = config.model_copy(
        update={"editing": config.editing.model_copy(update={"source_noise": False})}
    )
    other = Edit(free, word=None, target=SOURCE, stored=edit.stored)
    assert other.output.figures["changed_bits"] > 0


def test_regions_give_different_edits():
    first = Edit(word=None)
    cases = [CASES["mask"], CASES["word"], {"word": "grass"}]
    others = [Edit(stored=first.stored, **case) for case in cases]
    assert_all_differ([edit.output.image for edit in (first, others[0], others[1])])
    assert not torch.equal(others[1].stored[ATTENTION].map, others[2].stored[ATTENTION].map)


def test_a_second_target_costs_its_edit_alone():
    first = Edit()
    second = Edit(stored=first.stored, target="the blue dog on the grass")
    assert set(second.work) == {EDIT}
    assert second.meter.work == {"t5_forward": 1, "infinity_forward": 2, "bsq_decode": 1}
    assert not torch.equal(second.output.image, first.output.image)


def test_the_same_edit_is_the_same_to_the_bit_and_its_seed_counts():
    first = Edit(word=None)
    assert torch.equal(Edit(word=None, stored=first.stored).output.image, first.output.image)
    other = Edit(word=None, stored=first.stored, seed=1)
    assert not torch.equal(other.output.image, first.output.image)


def test_training_draws_other_numbers_with_another_seed():
    losses = [Edit(word=None, seed=s).stored[PROMPT].losses for s in (0, 1)]
    assert losses[0] != losses[1]


def test_what_is_kept_whole_stays_in_the_codes():
    """The picture is decoded from codes that are the source's where the weight is one."""
    config = small(infer_function=1)
    kept = Edit(config)
    assert torch.equal(kept.output.image, kept.stored[CODES].image)
    client, _ = metered_client()
    frame = frame_of(16, 16, SCHEDULE.image_size)
    region = from_mask(left_half(), frame, (16, 16), SCHEDULE, config.editing)
    assert region.cells[:, :2].all()
    assert not region.cells[:, 2:].any()
    assert region.weight[:, -1].eq(1).all()
    assert nothing(SCHEDULE).weight.eq(1).all()
    assert codes_of(client).layout == "own"


def test_training_brings_down_its_loss_without_noise():
    """On one picture, with steps that are large enough, each stage learns what is in it."""
    config = small(
        train_textembedding_iter=25, train_lora_iter=25, save_every=25, lora_dropout=0.0, lora_r=4
    )
    calm = {"noise": config.prompt.noise.model_copy(update={"flip_strength": 0.0})}
    faster = {"optimiser": config.prompt.optimiser.model_copy(update={"learning_rate": 0.01})}
    config = config.model_copy(
        update={
            "prompt": config.prompt.model_copy(update=calm | faster),
            "lora": config.lora.model_copy(update=calm | faster),
        }
    )
    edit = Edit(config, word=None)
    prompt, lora = edit.stored[PROMPT], edit.stored[LORA]
    assert prompt.losses[-1] < 0.97 * prompt.losses[0]
    assert lora.losses[-1] < 0.9 * lora.losses[0]
    assert lora.accuracy_after > prompt.accuracy_before


def test_artifacts_come_back_as_they_were():
    edit = Edit()
    codes, prompt, lora = (edit.stored[n] for n in (CODES, PROMPT, LORA))
    for artifact, kind in ((codes, SourceCodes), (prompt, LearnedPrompt), (lora, LearnedLora)):
        again = kind.from_tensors(artifact.to_tensors(), artifact.metadata())
        assert again.metadata() == artifact.metadata()
        for name, tensor in artifact.to_tensors().items():
            assert torch.equal(again.to_tensors()[name], tensor)
    found = WordAttention.from_tensors(edit.stored[ATTENTION].to_tensors())
    assert torch.equal(found.map, edit.stored[ATTENTION].map)


def test_an_iteration_that_was_not_kept_is_answered_with_those_that_were():
    prompt = Edit(word=None).stored[PROMPT]
    assert torch.equal(prompt.rows(None), prompt.rows(3))
    assert not torch.equal(prompt.rows(2), prompt.rows(3))
    with pytest.raises(InvalidRequestError, match=r"exist the iterations 2, 3"):
        prompt.rows(1)


def test_released_counts_see_one_update_less():
    ours, theirs = Edit(word=None), Edit(small(off_by_one=True), word=None)
    assert len(ours.stored[PROMPT].losses) == 3
    assert len(theirs.stored[PROMPT].losses) == 2
    assert torch.equal(theirs.stored[PROMPT].rows(3), ours.stored[PROMPT].rows(2))


def test_figures_say_what_changed():
    edit = Edit(word=None)
    figures = edit.output.figures
    assert figures["mask_share"] == 1
    assert figures["kept_weight"] == 0
    assert 0 < figures["changed_bits"] < 1
    assert figures["change"] > 0
    assert TARGET in edit.plan.target.prompt
