"""What must be known of a set of frozen networks without loading any of them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]


class RegionSpec(BaseModel):
    """Constants of the networks that find and fill regions (Learnable Regions)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dino_size: Positive
    """Side of the square pictures that DINO is given, pixels."""
    dino_patch: Positive
    """Side of a patch, pixels: a cell of the attention map."""
    inpainting_prediction: Literal["epsilon", "v_prediction"]
    """What the inpainting UNet predicts; its noise levels are the model's."""

    @property
    def grid(self) -> int:
        """Cells along a side of DINO's attention map."""
        return self.dino_size // self.dino_patch


class InfinityFacts(BaseModel):
    """Shapes of an Infinity transformer, its autoencoder and its text encoder (EditInfinity)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Positive
    depth: Positive
    """Blocks."""
    hidden: Positive
    """Width inside the feed-forward networks."""
    text_width: Positive
    text_rows: Positive
    """Most text rows, the learned ones included: rows of the unconditional text."""
    latent_channels: Positive
    """Bits of one latent cell."""
    stride: Positive
    """Pixels per latent cell and side."""
    patchify: bool = False
    """Whether a token stands for 2 x 2 latent cells."""
    size: Literal["0.06M", "0.25M", "0.60M", "1M"] | None = None
    """Pictures of every aspect ratio with about so many pixels."""
    grids: tuple[tuple[int, int], ...] | None = None
    """A schedule of its own, for one picture size, instead of `size`."""


class ModelSpec(BaseModel):
    """Shapes and constants of a latent-diffusion model with its text and image encoders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    image_size: Positive
    """Side of the square pictures that the networks take, pixels."""
    latent_channels: Positive
    latent_size: Positive
    tokens: Positive
    """Positions of the text encoder, start and end included."""
    text_width: Positive
    image_tokens: Positive
    """Tokens of the image encoder E, class token included; their width is `text_width`."""
    map_size: Positive
    """Side of the cross-attention maps that are recorded (16 in the paper)."""
    self_replace_size: Positive
    """Largest side at which self-attention is replaced while editing (32 in the paper)."""
    prediction_type: Literal["epsilon", "v_prediction"]
    num_train_timesteps: Positive = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    steps_offset: int = 1
    """Added to every timestep; Stable Diffusion's pipelines set it to 1 when they load."""
    text_to_image: bool = True
    """False where the set has no UNet but the inpainting one, as sd2-inpainting."""
    safety: bool = False
    """Whether the set has a safety checker; edited pictures are then shown to it."""
    regions: RegionSpec | None = None
    """None where the set has no DINO and no inpainting UNet."""
    infinity: InfinityFacts | None = None
    """None where the set has no Infinity."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return (self.latent_channels, self.latent_size, self.latent_size)
