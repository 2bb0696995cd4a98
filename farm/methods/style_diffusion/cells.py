"""All the edits that one request asks for: its targets times the combinations of its taus."""

from dataclasses import dataclass
from typing import Any

from farm.methods.style_diffusion.config import TAUS, EditingConfig, StyleDiffusionConfig
from farm.methods.style_diffusion.plan import EditPlan, plan_prompts
from farm.methods.style_diffusion.words import Tokenizer
from farm.requests import FurtherTarget, StyleDiffusionParameters, StyleDiffusionRequest


@dataclass(frozen=True)
class EditCell:
    """One edit among those of a request: a target prompt with one value of each tau."""

    plan: EditPlan
    config: EditingConfig
    target_word: str | None = None
    seed: int = 0
    """Of the noise that is drawn anew, where the configuration asks for any."""

    @property
    def depends(self) -> dict[str, Any]:
        """What determines it besides the inversion, in JSON's forms."""
        return {
            "target_prompt": self.plan.target.prompt,
            "target_word": self.target_word,
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed if self.config.fresh_noise else None,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What tells it apart from the others of its request, in JSON's forms."""
        taus = self.config.model_dump(mode="json", include=set(TAUS))
        return {"target_prompt": self.plan.target.prompt, **taus}


def configure(
    request: StyleDiffusionRequest, defaults: StyleDiffusionConfig
) -> StyleDiffusionConfig:
    """The configuration of a request's first edit; the inversion is that of all its edits."""
    prompts = request.source_prompt, request.target_prompt
    fitting = defaults.for_prompts(*prompts, request.parameters.restructure)
    config = fitting.with_parameters(request.parameters)
    if not request.is_generated:
        return config
    drawn = config.inversion.model_copy(update={"generated": True, "learned": "nothing"})
    return config.model_copy(update={"inversion": drawn})


def plan_cells(
    tokenizer: Tokenizer, request: StyleDiffusionRequest, defaults: StyleDiffusionConfig
) -> tuple[EditCell, ...]:
    """Every edit of a request, planned; target by target, the last tau varying fastest.

    The first is that of the request's own target and the first value of each tau.

    Raises:
        InvalidPromptError: a prompt is too long, words cannot be replaced one for one, or the local
            blend has no word to follow.
        UnknownWordError: a word is not in its prompt.
    """
    steps = configure(request, defaults).inversion.num_steps
    own = (request.target_prompt, request.target_word, request.parameters)
    targets = [own]
    for target in request.parameters.further_targets:
        parameters = _parameters_of(target, request.parameters)
        targets.append((target.target_prompt, target.target_word, parameters))
    cells: list[EditCell] = []
    for prompt, word, parameters in targets:
        fitting = defaults.for_prompts(request.source_prompt, prompt, parameters.restructure)
        for config in fitting.grid(parameters):
            plan = plan_prompts(tokenizer, request.source_prompt, prompt, config, steps, word)
            cells.append(EditCell(plan, config, word, request.seed))
    return tuple(cells)


def _parameters_of(
    target: FurtherTarget, parameters: StyleDiffusionParameters
) -> StyleDiffusionParameters:
    """The request's parameters with what a further target says of its words."""
    of_words = {
        name: getattr(target, name)
        for name in FurtherTarget.model_fields
        if name not in ("target_prompt", "target_word")
    }
    return parameters.model_copy(update={**of_words, "target_subtract": None})
