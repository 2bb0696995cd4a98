"""Background textures: each a function of four numbers, so that it can be drawn again exactly.

Most are built from separable waves (a product of a function of x and one of y), which is what makes
two thousand pictures a second possible on two cores.
"""

from collections.abc import Callable
from math import tau

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.zoo.scenes.vocabulary import BACKGROUNDS, SIZE

_AXIS = (torch.arange(SIZE) + 0.5) / SIZE
_X = _AXIS.view(1, 1, SIZE)
_Y = _AXIS.view(1, SIZE, 1)

_Draw = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _colour(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1)


def _mix(low: Tensor, high: Tensor, amount: Tensor) -> Tensor:
    return low + (high - low) * amount


def _down(top: Tensor, bottom: Tensor) -> Tensor:
    """A vertical gradient (1, 3, height, 1)."""
    return _mix(top, bottom, _AXIS.view(1, 1, SIZE, 1))


def _sky(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    wave = torch.sin(tau * (_X * (0.7 + a) + b)) * torch.sin(tau * (_Y * (1.2 + c) + d))
    cloud = 0.7 * torch.sigmoid(6 * (wave - 0.45))
    return _mix(
        _down(_colour(0.38, 0.62, 0.95), _colour(0.80, 0.90, 1.0)),
        _colour(1.0, 1.0, 1.0),
        cloud[:, None],
    )


def _grass(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    bend = 4 * torch.sin(_Y * (8 + 5 * c) + tau * b)
    blades = torch.sin(_X * (62 + 16 * a) + bend + tau * d)
    return _down(_colour(0.42, 0.62, 0.22), _colour(0.28, 0.48, 0.14)) * (
        1 + 0.12 * blades[:, None]
    )


def _sand(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    ripple = torch.sin(2 * tau * (_Y * (4 + 2 * a) + 0.12 * torch.sin(_X * 7 + tau * b)) + tau * d)
    dune = torch.sin(tau * _X * (1 + c)) * torch.sin(tau * (_Y + d))
    return _colour(0.87, 0.77, 0.55) * (1 + 0.06 * ripple + 0.04 * dune)[:, None]


def _brick(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    y = _Y * 6 + 2 * d
    row = torch.floor(y)
    x = _X * 4 + 2 * b + 0.5 * (row % 2)
    column = torch.floor(x)
    across, up = x - column, y - row
    edge = torch.minimum(torch.minimum(across, 1 - across) * 16, torch.minimum(up, 1 - up) * 10.7)
    tone = 1 + 0.06 * torch.sin(column * 3.1 + row * 1.7 + tau * c) + 0.05 * (a - 0.5)
    face = _colour(0.66, 0.32, 0.25) * tone[:, None]
    return _mix(_colour(0.80, 0.76, 0.70), face, (edge.clamp(0, 1.6) / 1.6)[:, None])


def _water(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    wave = torch.sin(
        tau * (_Y * (7 + 2 * a) + 0.25 * torch.sin(_X * (7 + 3 * c) + tau * b + _Y * 3) + d)
    )
    return _down(_colour(0.12, 0.55, 0.65), _colour(0.05, 0.35, 0.50)) * (1 + 0.16 * wave[:, None])


def _snow(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    drift = torch.sin(tau * (_X * (1 + a) + b)) * torch.sin(tau * (_Y * (1 + c) + d))
    hill = torch.sigmoid(8 * (_Y - 0.6 - 0.1 * torch.sin(tau * (_X * (1 + a) + b))))
    return _colour(0.90, 0.92, 0.95) * (1 + 0.05 * drift)[:, None] - 0.06 * hill[:, None]


def _night(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    which = torch.arange(7.0).view(1, 7, 1, 1)
    a, b, c, d = (v[:, None] for v in (a, b, c, d))
    star_x = (a * 7.3 + b * 3.1 * which + which * 0.377 + c) % 1
    star_y = (d * 5.7 + c * 2.3 * which + which * 0.619 + a) % 1
    sharp = SIZE * SIZE / 1.5
    across = torch.exp(-((_AXIS.view(1, 1, 1, SIZE) - star_x) ** 2) * sharp)
    down = torch.exp(-((_AXIS.view(1, 1, SIZE, 1) - star_y) ** 2) * sharp)
    stars = torch.matmul(down[..., 0].transpose(1, 2), across[..., 0, :]).clamp(max=1)
    return _down(_colour(0.03, 0.03, 0.16), _colour(0.16, 0.10, 0.34)) + 0.8 * stars[:, None]


def _wood(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    y = _Y * 4 + d
    row = torch.floor(y)
    up = y - row
    grain = torch.sin(tau * (up * 2 + 0.3 * torch.sin(_X * 5 + row * 2 + tau * b) + a))
    plank = (0.6 + 0.4 * (torch.minimum(up, 1 - up) * 16).clamp(0, 1)) * (
        1 + 0.07 * torch.sin(row * 2.3 + tau * c)
    )
    return _colour(0.55, 0.36, 0.18) * ((1 + 0.10 * grain) * plank)[:, None]


_DRAW: dict[str, _Draw] = {
    "sky": _sky,
    "grass": _grass,
    "sand": _sand,
    "brick": _brick,
    "water": _water,
    "snow": _snow,
    "night": _night,
    "wood": _wood,
}


def draw_backgrounds(
    background: Int[Tensor, " scenes"], texture: Float[Tensor, "scenes 4"]
) -> Float[Tensor, "scenes 3 height width"]:
    """Pictures of backgrounds alone, RGB in [0, 1]."""
    images = torch.empty(len(background), 3, SIZE, SIZE)
    for kind, name in enumerate(BACKGROUNDS):
        rows = (background == kind).nonzero()[:, 0]
        if len(rows):
            a, b, c, d = texture[rows].view(-1, 4, 1, 1).unbind(1)
            images[rows] = _DRAW[name](a, b, c, d)
    return images.clamp_(0, 1)
