"""Files to tensors and back: the only place of the farm where that happens.

Inside the farm an image is float32, RGB, channels first, in [0, 1], upright, and over white where
the file was transparent. Samples are taken as the file stores them: no gamma, no colour profile.
"""

from farm.images.decoding import (
    DEFAULT_LIMITS,
    DecodedImage,
    ImageFormat,
    ImageLimits,
    decode_image,
    image_digest,
)
from farm.images.encoding import encode_jpeg, encode_png, encode_webp, thumbnail_data_uri
from farm.images.placement import FitMode, Placement, Window, fit_to_model, restore

__all__ = [
    "DEFAULT_LIMITS",
    "DecodedImage",
    "FitMode",
    "ImageFormat",
    "ImageLimits",
    "Placement",
    "Window",
    "decode_image",
    "encode_jpeg",
    "encode_png",
    "encode_webp",
    "fit_to_model",
    "image_digest",
    "restore",
    "thumbnail_data_uri",
]
