"""Edited pictures before they are committed: what a safety checker flags becomes black.

Kept on wherever a model set has a checker (`ModelSpec.safety`), as Stable Diffusion's pipelines do.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from farm.calls import Call, Executor
from farm.model_spec import ModelSpec
from farm.runner.method import Outputs

_EDITED = "edited"


def shown_to_checker(
    outputs: Outputs, executor: Executor, spec: ModelSpec
) -> tuple[Outputs, Mapping[str, bool] | None]:
    """Outputs without what must not be shown, and the verdict on each coloured picture by name.

    The verdict is None where the model set has no checker.
    """
    if not spec.safety:
        return outputs, None
    coloured = {name: p for name, p in outputs.pictures.items() if len(p) == 3}
    pictures = {_EDITED: outputs.edited, **coloured}
    calls = [Call("safety.check", {"image": p.cpu().numpy()}) for p in pictures.values()]
    answers = executor.run_all(calls)
    verdict = {
        name: bool(answer.arrays["flagged"]) for name, answer in zip(pictures, answers, strict=True)
    }
    black = {n: torch.zeros_like(p) if verdict[n] else p for n, p in pictures.items()}
    edited = black.pop(_EDITED)
    return replace(outputs, edited=edited, pictures={**outputs.pictures, **black}), verdict
