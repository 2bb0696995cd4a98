"""The stages of an edit with their texts: what a runner calls, one after the other."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.methods.edit_infinity.attention import WordAttention, attend
from farm.methods.edit_infinity.choosing import Chooser
from farm.methods.edit_infinity.client import InfinityClient
from farm.methods.edit_infinity.codes import SourceCodes
from farm.methods.edit_infinity.config import EditInfinityConfig
from farm.methods.edit_infinity.editing import EditOutput, Target, edit, keep_source
from farm.methods.edit_infinity.lora import LearnedLora, train_lora
from farm.methods.edit_infinity.lora_format import adapters_of
from farm.methods.edit_infinity.needs import Tokens
from farm.methods.edit_infinity.plan import EditPlan
from farm.methods.edit_infinity.prompt import LearnedPrompt, train_prompt
from farm.methods.edit_infinity.region import EditRegion
from farm.methods.edit_infinity.training import TrainingState
from farm.progress import Progress

Rows = Float[Tensor, "rows text_width"]


@dataclass(frozen=True)
class Session:
    """What all stages of one edit have in common."""

    plan: EditPlan
    client: InfinityClient
    config: EditInfinityConfig
    seed: int
    chooser: Chooser | None = None

    def prompt_stage(
        self, codes: SourceCodes, checkpoint: TrainingState | None = None
    ) -> Generator[Progress, None, LearnedPrompt]:
        """Train the learned prompt."""
        text = self._embed(self.plan.training)
        return (
            yield from train_prompt(
                codes, text, self.client, self.config, seed=self.seed, checkpoint=checkpoint
            )
        )

    def lora_stage(
        self,
        codes: SourceCodes,
        prompt: LearnedPrompt | None,
        checkpoint: TrainingState | None = None,
    ) -> Generator[Progress, None, LearnedLora]:
        """Train the adapters, under the learned prompt where that is switched on."""
        lora = self.config.lora
        text = self._embed(self.plan.training if lora.use_textembedding else self.plan.source)
        if lora.use_textembedding:
            assert prompt is not None, "the plan makes the prompt that adapters are trained under"
            text = torch.cat([text, prompt.rows(lora.use_textembedding_iter)])
        return (
            yield from train_lora(
                codes, text, self.client, self.config, seed=self.seed, checkpoint=checkpoint
            )
        )

    def attention_stage(self, codes: SourceCodes) -> Generator[Progress, None, WordAttention]:
        """Where the target word is looked at."""
        return (
            yield from attend(codes, self._embed(self.plan.source), self.plan.span, self.client)
        )

    def edit_stage(
        self,
        codes: SourceCodes,
        region: EditRegion,
        prompt: LearnedPrompt | None,
        lora: LearnedLora | None,
    ) -> Generator[Progress, None, EditOutput]:
        """The edited picture; where the attention alone is asked for, the source."""
        if self.plan.region == "attention":
            return keep_source(codes, region)
        editing = self.config.editing
        text = self._with_learned(self._embed(self.plan.target), prompt)
        adapters = None
        if editing.use_lora:
            assert lora is not None, "the plan makes the adapters that the edit uses"
            adapters = adapters_of(lora.flat(editing.use_lora_iter), self.config.lora)
        negative = None if self.plan.negative is None else self._embed(self.plan.negative)
        source = None
        if editing.source_noise:
            tokens = self.plan.training if editing.use_concat_embedding else self.plan.source
            source = self._with_learned(self._embed(tokens), prompt)
        target = Target(text, adapters, negative, source)
        steps = edit(
            codes, target, region, self.client, editing, seed=self.seed, chooser=self.chooser
        )
        return (yield from steps)

    def _with_learned(
        self, text: Rows, prompt: LearnedPrompt | None
    ) -> Float[Tensor, "all_rows text_width"]:
        """A text as an edit takes it: with the learned rows, where these are used."""
        editing = self.config.editing
        if not editing.use_concat_embedding:
            return text
        assert prompt is not None, "the plan makes the prompt that the target is given"
        return torch.cat([text, prompt.rows(editing.use_embedding_iter)])

    def _embed(self, tokens: Tokens) -> Rows:
        return self.client.embed(tokens.ids)
