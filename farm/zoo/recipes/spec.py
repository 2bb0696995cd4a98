"""Shapes and constants of the scenes networks."""

from farm.model_spec import InfinityFacts, ModelSpec, RegionSpec
from farm.zoo.recipes.clip import TOKENS, WIDTH

_REGIONS = RegionSpec(dino_size=64, dino_patch=4, inpainting_prediction="v_prediction")


def scenes_spec(*, regions: bool = False, infinity: InfinityFacts | None = None) -> ModelSpec:
    """What the farm must know of the scenes networks before it loads any.

    Args:
        regions: whether there are the networks that find and fill regions.
        infinity: what is stated of the Infinity, if there is one.
    """
    return ModelSpec(
        name="scenes",
        image_size=64,
        latent_channels=4,
        latent_size=16,
        tokens=TOKENS,
        text_width=WIDTH,
        image_tokens=65,
        map_size=16,
        self_replace_size=16,
        prediction_type="v_prediction",
        regions=_REGIONS if regions else None,
        infinity=infinity,
    )
