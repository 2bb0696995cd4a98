"""Every number of the method; where each comes from is in PAPER.md under Numbers.

Switches have the names that the example pipeline's guides give them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from farm.requests.edit_infinity import EditInfinityParameters

Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimiserConfig(_Config):
    """AdamW at a constant rate, the gradient clipped by its norm."""

    learning_rate: Positive = 4.6875e-5
    beta1: Rate = 0.9
    beta2: Rate = 0.97
    epsilon: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.005
    max_grad_norm: Positive = 5.0


class NoiseConfig(_Config):
    """Augmentation of the training steps."""

    flip_strength: Share = 0.3
    """Highest share of a scale's bits that later scales see flipped (self-correction)."""
    condition_dropout: Rate = 0.0  # D8
    """Share of steps without text."""
    drop_path: Rate = 0.0
    """Rate of dropped paths at the last block."""


class PromptConfig(_Config):
    """The learned prompt: rows after the source prompt and an instruction."""

    train_textembedding: bool = True
    """Whether it is trained; otherwise one that exists is used."""
    train_textembedding_iter: Count = 10
    prompt_rows: Count = 20
    instruction: str = ", the language style of this prompt is"
    optimiser: OptimiserConfig = OptimiserConfig()
    noise: NoiseConfig = NoiseConfig()


class LoraConfig(_Config):
    """Low-rank adapters of the feed-forward networks."""

    train_lora: bool = True
    train_lora_iter: Count = 20
    use_textembedding: bool = True
    """Whether they are trained under the learned prompt."""
    use_textembedding_iter: Count | None = None
    """Which iteration of it; None: the last."""
    lora_r: Count = 4
    lora_alpha: Positive = 32.0
    lora_dropout: Rate = 0.1
    kl_weight: Annotated[float, Field(ge=0)] = 2e-7
    optimiser: OptimiserConfig = OptimiserConfig()
    noise: NoiseConfig = NoiseConfig()


class EditingConfig(_Config):
    """How a target prompt is applied."""

    infer_function: Literal[0, 1, 2] | None = None
    """0 the whole picture, 1 the target word's attention alone, 2 with what is outside kept;
    None: 2 where there is a mask or a target word, else 0."""
    use_concat_embedding: bool = True
    """Whether the learned prompt follows the target prompt."""
    use_embedding_iter: Count | None = None
    use_lora: bool = True
    use_lora_iter: Count | None = None
    occurrence: Count | None = None
    """Which occurrence of the target word; None: the first."""
    threshold: Share = 0.5
    """Where a map becomes a mask: share of the way from its minimum to its maximum."""
    large_threshold: Share | None = None
    """The same for an automatic region that is large, a background say (D13); None: no other."""
    grow: Annotated[float, Field(ge=0, le=4)] = 0.0
    """Latent cells by which an automatic region that is not large grows on all sides (D13)."""
    kernel: Literal["released", "paper"] = "released"
    """How weights rise from the mask's border."""
    guidance: Annotated[float, Field(ge=1)] = 4.0
    tau: Positive = 0.5
    top_k: Annotated[int, Field(ge=0)] = 900
    top_p: Share = 0.97
    cfg_insertion: Annotated[int, Field(le=0)] = 0
    negative_prompt: str | None = None
    source_noise: bool = False
    """Draw with the noise that gives the source under the source prompt (D16)."""
    candidates: Annotated[int, Field(ge=1, le=64)] = 1
    """Drawings of the target, of which CLIP chooses one (D14)."""
    structure_weight: Annotated[float, Field(ge=0)] = 1.0
    """How much it counts against one of several that it is built unlike the source (D14)."""
    paste_back: bool = False
    """The original's own pixels where nothing was to change (PAPER.md D9)."""
    paste_threshold: Share = 0.0
    """And where the picture changed by no more than this (PAPER.md D15)."""
    plotted_mask: bool = False
    """Send an automatic mask through a plotted picture, as released (PAPER.md D6)."""


class EditInfinityConfig(_Config):
    """One configuration of the method."""

    prompt: PromptConfig = PromptConfig()
    lora: LoraConfig = LoraConfig()
    editing: EditingConfig = EditingConfig()
    attention_bias: bool = True
    """Keep all attention biases of the checkpoint (PAPER.md D1)."""
    save_every: Count = 10
    """Iterations between those that can be used later; the last always can."""
    off_by_one: bool = False
    """What is called iteration n has seen n - 1 updates, as released (PAPER.md D2)."""
    last_occurrence: bool = False
    """Without an occurrence asked for, take the word's last, as released (PAPER.md D7)."""

    def with_parameters(self, parameters: EditInfinityParameters) -> "EditInfinityConfig":
        """This configuration with what a request sets; what it leaves out stays.

        `reference` sets every switch of `reference_switches` first.
        """
        base = reference_switches(self) if parameters.reference else self
        given = parameters.model_dump(exclude_none=True)
        changes: dict[str, dict[str, object]] = {}
        for part in ("prompt", "lora", "editing"):
            section: _Config = getattr(base, part)
            named = {n: v for n, v in given.items() if n in type(section).model_fields}
            changes[part] = section.model_dump() | named
        if parameters.learning_rate is not None:
            for part in ("prompt", "lora"):
                optimiser = getattr(base, part).optimiser.model_dump()
                changes[part]["optimiser"] = optimiser | {"learning_rate": parameters.learning_rate}
        whole = {n: v for n, v in given.items() if n in ("attention_bias", "save_every")}
        return EditInfinityConfig.model_validate(base.model_dump() | changes | whole)

    def without_choice(self) -> "EditInfinityConfig":
        """This configuration with one candidate, where nobody could choose among several."""
        editing = self.editing.model_copy(update={"candidates": 1})
        return self.model_copy(update={"editing": editing})

    def updates(self, iterations: int) -> int:
        """Optimiser steps behind what is called iteration `iterations`."""
        return iterations - 1 if self.off_by_one else iterations

    def saved(self, iterations: int) -> tuple[int, ...]:
        """Iterations of a training that can be used later."""
        return tuple(
            n for n in range(1, iterations + 1) if n % self.save_every == 0 or n == iterations
        )


def reference_switches(config: EditInfinityConfig) -> EditInfinityConfig:
    """The released program's arithmetic, quirk by quirk (PAPER.md, Deviations)."""
    noise = {"condition_dropout": 0.1, "drop_path": 0.1}
    return config.model_copy(
        update={
            "prompt": config.prompt.model_copy(
                update={"noise": config.prompt.noise.model_copy(update=noise)}
            ),
            "lora": config.lora.model_copy(
                update={"noise": config.lora.noise.model_copy(update=noise)}
            ),
            "editing": config.editing.model_copy(
                update={
                    "kernel": "released",
                    "grow": 0.0,
                    "large_threshold": None,
                    "source_noise": False,
                    "candidates": 1,
                    "plotted_mask": True,
                    "paste_back": False,
                    "paste_threshold": 0.0,
                }
            ),
            "attention_bias": False,
            "off_by_one": True,
            "last_occurrence": True,
        }
    )


def paper() -> EditInfinityConfig:
    """The published settings for the 2B model at a megapixel."""
    return EditInfinityConfig(
        prompt=PromptConfig(
            train_textembedding_iter=10,  # spec §5.3
            prompt_rows=20,  # spec §5.3
            optimiser=OptimiserConfig(),  # spec §5.3
            noise=NoiseConfig(flip_strength=0.3),  # spec §3.3
        ),
        lora=LoraConfig(
            train_lora_iter=20,  # spec §5.4; the scripts' 50 forget the target prompt
            lora_r=4,  # spec §5.4
            lora_alpha=32.0,  # spec §5.4
            lora_dropout=0.1,  # spec §5.4
            kl_weight=2e-7,  # spec §5.4
        ),
        editing=EditingConfig(
            threshold=0.5,  # spec §5.6
            kernel="released",  # spec §5.6
            guidance=4.0,  # spec §5.7
            tau=0.5,  # spec §5.7
            top_k=900,  # spec §5.7
            top_p=0.97,  # spec §5.7
            source_noise=False,  # D16
            candidates=1,  # D14
            paste_back=False,  # D9
            paste_threshold=0.0,  # D15
        ),
    )


def scenes() -> EditInfinityConfig:
    """Defaults of the scenes model set.

    Its transformer is a thousandth of the published one and its text rows are a twentieth as wide,
    so steps are larger. Tuned on seeds 5 to 7 (PAPER.md).
    """
    optimiser = OptimiserConfig(learning_rate=1e-3)
    return EditInfinityConfig(
        prompt=PromptConfig(optimiser=optimiser),
        lora=LoraConfig(optimiser=optimiser, lora_dropout=0.0),
        editing=EditingConfig(
            guidance=3.0,
            tau=1.0,
            large_threshold=0.7,
            grow=1.0,
            candidates=8,
            paste_back=True,
            paste_threshold=0.12,
        ),
    )


def tiny() -> EditInfinityConfig:
    """For tests: every stage runs, in a moment."""
    optimiser = OptimiserConfig(learning_rate=1e-3)
    return EditInfinityConfig(
        prompt=PromptConfig(train_textembedding_iter=3, prompt_rows=2, optimiser=optimiser),
        lora=LoraConfig(train_lora_iter=3, lora_r=2, lora_alpha=4.0, optimiser=optimiser),
        editing=EditingConfig(guidance=2.0),
        save_every=2,
    )
