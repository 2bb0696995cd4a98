"""What an edit costs, counted before it is done, in the units in which answers count."""

from farm.methods.edit_infinity.client import is_guided
from farm.methods.edit_infinity.config import EditInfinityConfig
from farm.methods.edit_infinity.plan import ATTENTION, CODES, LORA, PROMPT, EditPlan

EDIT = "edit"

_TEXT, _FORWARD, _BACKWARD = "t5_forward", "infinity_forward", "infinity_backward"


def planned_work(plan: EditPlan, config: EditInfinityConfig) -> dict[str, dict[str, int]]:
    """Units of work of every stage that the plan makes, and of the edit, by name.

    A stage that is in the store costs nothing.
    """
    prompt = config.updates(config.prompt.train_textembedding_iter)
    lora = config.updates(config.lora.train_lora_iter)
    stages = {
        CODES: {"bsq_encode": 1, "bsq_decode": 1},
        PROMPT: {_TEXT: 1, _FORWARD: prompt + 2, _BACKWARD: prompt},
        LORA: {_TEXT: 1, _FORWARD: lora + 1, _BACKWARD: lora},
        ATTENTION: {_TEXT: 1, _FORWARD: 1},
    }
    planned = {name: _counted(stages[name]) for name in plan.makes}
    planned[EDIT] = {} if plan.region == "attention" else _edit_work(plan, config)
    return planned


def _edit_work(plan: EditPlan, config: EditInfinityConfig) -> dict[str, int]:
    texts = 1 if plan.negative is None else 2
    branches = 2 if is_guided((config.editing.guidance,)) else 1
    drawn = config.editing.candidates
    looked_back = 1 if config.editing.source_noise else 0
    chosen = {"scorer_text_forward": 2, "scorer_forward": 2 * (drawn + 1)} if drawn > 1 else {}
    return {
        _TEXT: texts + looked_back,
        _FORWARD: branches * (drawn + looked_back),
        "bsq_decode": drawn,
        **chosen,
    }


def _counted(units: dict[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in units.items() if amount}
