"""What the method asks of whoever holds the frozen networks."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from farm.losses.views import Views
from farm.model_spec import ModelSpec
from farm.regions import DinoAnswer, DinoFeature, ImageScore, InpaintQuery, StructureLayer

Image = Float[Tensor, "3 height width"]


@runtime_checkable
class RegionBackbones(Protocol):
    """DINO, a CLIP that judges, an inpainting model; `farm.regions.RegionsClient` is one.

    What takes a sequence may be answered in any batches; no item influences another.
    """

    @property
    def spec(self) -> ModelSpec: ...

    def dino(
        self, image: Image, *, features: DinoFeature = "tokens", normalise: bool = True
    ) -> DinoAnswer: ...

    def embed_prompt(self, ids: Sequence[int]) -> Float[Tensor, "tokens embed"]: ...

    def score_text(self, ids: Sequence[int]) -> Float[Tensor, " embed"]: ...

    def score_images(
        self,
        images: Sequence[Image],
        *,
        layer: StructureLayer = "before_last",
        scale: float = 1.0,
    ) -> list[ImageScore]: ...

    def score_views(
        self, images: Sequence[Image], views: Views, *, scale: float = 1.0
    ) -> list[Float[Tensor, "views embed"]]: ...

    def relevance(
        self, image: Image, direction: Float[Tensor, " embed"]
    ) -> Float[Tensor, "grid grid"]: ...

    def encode(
        self, images: Sequence[Float[Tensor, "3 image_size image_size"]]
    ) -> list[Float[Tensor, "channels height width"]]: ...

    def decode(
        self, latents: Sequence[Float[Tensor, "channels height width"]]
    ) -> list[Float[Tensor, "3 image_size image_size"]]: ...

    def inpaint(
        self, queries: Sequence[InpaintQuery]
    ) -> list[Float[Tensor, "channels height width"]]: ...
