"""The released program's random views of a picture, drawn in its order and applied by torchvision.

A trace is the set's: a list of [operation, positional arguments, keyword arguments], in which a
crop begins a new view. The farm's own views are `farm.losses.views`.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torchvision.transforms.functional as tv
from torch import Tensor
from torchvision.transforms import InterpolationMode

Operation = list[Any]
Trace = list[Operation]

_OPERATIONS = {
    "resize": lambda image, size, mode, most, antialias: tv.resize(
        image, size, _mode(mode), max_size=most, antialias=antialias
    ),
    "crop": tv.crop,
    "hflip": tv.hflip,
    "affine": lambda image, *args, interpolation, **kwargs: tv.affine(
        image, *args, interpolation=_mode(interpolation), **kwargs
    ),
    "perspective": lambda image, start, end, mode, fill: tv.perspective(
        image, start, end, _mode(mode), fill
    ),
    "adjust_brightness": tv.adjust_brightness,
    "adjust_contrast": tv.adjust_contrast,
    "adjust_saturation": tv.adjust_saturation,
    "adjust_hue": tv.adjust_hue,
    "rgb_to_grayscale": tv.rgb_to_grayscale,
}


def _mode(name: str) -> InterpolationMode:
    return InterpolationMode(name)


def apply_trace(image: Tensor, trace: Trace) -> Tensor:
    """All views of a picture (a batch of one), (views, 3, size, size)."""
    return torch.cat([_applied(image, view) for view in split_views(trace)])


def split_views(trace: Trace) -> list[Trace]:
    views: list[Trace] = [[]]
    for operation in trace:
        if operation[0] == "crop":
            views.append([])
        views[-1].append(operation)
    return views


def _applied(image: Tensor, view: Trace) -> Tensor:
    for name, args, kwargs in view:
        image = _OPERATIONS[name](image, *args, **kwargs)
    return image


def released_trace(
    height: int,
    width: int,
    count: int,
    size: int,
    generator: torch.Generator,
) -> Trace:
    """A trace as the program draws it from its generator (torchvision's transforms, spec §2)."""
    trace: Trace = []
    for number in range(count):
        if number == 0:
            trace.append(["resize", [size, "bilinear", 320, True], {}])
        else:
            scale = float(torch.empty(1).uniform_(0.6, 1.0, generator=generator))
            tall, wide = int(height * scale), int(width * scale)
            top = _integer(height - tall + 1, generator)
            left = _integer(width - wide + 1, generator)
            trace.append(["crop", [top, left, tall, wide], {}])
            trace.append(["resize", [[size, size], "bilinear", None, True], {}])
        trace.extend(_augmentations(size, generator))
    return trace


def _augmentations(size: int, generator: torch.Generator) -> Iterator[Operation]:
    def uniform(low: float, high: float) -> float:
        return float(torch.empty(1).uniform_(low, high, generator=generator))

    def chance(probability: float) -> bool:
        return bool(torch.rand(1, generator=generator) < probability)

    white = [1.0, 1.0, 1.0]
    if chance(0.5):
        yield ["hflip", [], {}]
    if chance(0.8):
        angle, most = uniform(-15, 15), 0.1 * size
        shift = [round(uniform(-most, most)), round(uniform(-most, most))]
        kwargs = {"interpolation": "bilinear", "fill": white, "center": None}
        yield ["affine", [angle, shift, 1.0, [0.0, 0.0]], kwargs]
    if chance(0.5):
        yield ["perspective", [*_corners(size, generator), "bilinear", white], {}]
    if chance(0.7):
        order = torch.randperm(4, generator=generator).tolist()
        factors = [uniform(0.9, 1.1), uniform(0.9, 1.1), uniform(0.9, 1.1), uniform(-0.1, 0.1)]
        names = ("brightness", "contrast", "saturation", "hue")
        for n in order:
            yield [f"adjust_{names[n]}", [factors[n]], {}]
    if chance(0.15):
        yield ["rgb_to_grayscale", [], {"num_output_channels": 3}]


def _corners(size: int, generator: torch.Generator) -> tuple[list[list[int]], list[list[int]]]:
    """Corners before and after, clockwise from the top left, each moved inwards."""
    reach, last = int(0.4 * (size // 2)), size - 1
    start = [[0, 0], [last, 0], [last, last], [0, last]]
    end = [
        [(last - reach if at else 0) + _integer(reach + 1, generator) for at in corner]
        for corner in start
    ]
    return start, end


def _integer(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, below, (1,), generator=generator))
