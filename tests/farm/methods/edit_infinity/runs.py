"""Stages on tiny networks in this process."""

from farm.methods.edit_infinity.codes import make_codes
from farm.methods.edit_infinity.config import tiny
from farm.methods.edit_infinity.plan import Wish, plan_edit
from farm.methods.edit_infinity.stages import Session
from tests.stages import finish
from tests.tiny_infinity import SCHEDULE, SPEC, metered_client, picture, tiny_tokenizer

SOURCE, TARGET = "a red cat on the grass", "a blue cat on the grass"


def small(**changes):
    """The tiny configuration with a short instruction, and single fields changed."""
    config = tiny()
    parts = {"prompt": {"instruction": " style"}, "lora": {}, "editing": {}}
    whole = {}
    for name, value in changes.items():
        home = next((p for p in parts if name in type(getattr(config, p)).model_fields), None)
        if home is None:
            whole[name] = value
        else:
            parts[home][name] = value
    rate = whole.pop("learning_rate", None)
    if rate is not None:
        for part in ("prompt", "lora"):
            optimiser = getattr(config, part).optimiser
            parts[part]["optimiser"] = optimiser.model_copy(update={"learning_rate": rate})
    updated = {p: getattr(config, p).model_copy(update=c) for p, c in parts.items()}
    return config.model_copy(update=updated | whole)


def wish(word="cat", *, mask=False, source=SOURCE, target=TARGET):
    return Wish(source, target, word, mask)


def planned(config=None, **changes):
    config = small() if config is None else config
    return plan_edit(wish(**changes), tiny_tokenizer(), SPEC, config)


def session(config=None, *, seed=0, **changes):
    """A session on a counting client, and its meter."""
    config = small() if config is None else config
    client, meter = metered_client(biases=config.attention_bias)
    return Session(planned(config, **changes), client, config, seed), meter


def codes_of(client, seed=7):
    return finish(make_codes(picture(seed), SCHEDULE, client))[1]
