"""Rows of PIE-Bench tables that others published: quoted, never ours.

Structure distance times 1000, PSNR in dB, LPIPS times 1000, MSE times 10 000, SSIM times 100, CLIP
on the whole picture and on the edited region, ImageReward times 10; None where a table has it not.
"""

from typing import NamedTuple

PNP_INVERSION = "PnPInversion (arXiv:2310.01506), table of its paper and repository"
EDIT_INFINITY = "EditInfinity's repository, table of its README"


class PublishedRow(NamedTuple):
    """A row as it was printed, with where it comes from."""

    inversion: str
    editor: str
    structure: float | None
    psnr: float
    lpips: float
    mse: float
    ssim: float
    clip_whole: float
    clip_edited: float
    image_reward: float | None
    source: str


def _pnp(inversion: str, editor: str, *numbers: float) -> PublishedRow:
    structure, psnr, lpips, mse, ssim, whole, edited = numbers
    values = (structure, psnr, lpips, mse, ssim, whole, edited)
    return PublishedRow(inversion, editor, *values, None, PNP_INVERSION)


def _infinity(name: str, *numbers: float) -> PublishedRow:
    psnr, lpips, mse, ssim, whole, edited, reward = numbers
    return PublishedRow(
        "", name, None, psnr, lpips, mse, ssim, whole, edited, reward, EDIT_INFINITY
    )


PUBLISHED: tuple[PublishedRow, ...] = (
    _pnp("DDIM", "P2P", 69.43, 17.87, 208.80, 219.88, 71.14, 25.01, 22.44),
    _pnp("null-text", "P2P", 13.44, 27.03, 60.67, 35.86, 84.11, 24.75, 21.86),
    _pnp("negative-prompt", "P2P", 16.17, 26.21, 69.01, 39.73, 83.40, 24.61, 21.87),
    _pnp("StyleDiffusion", "P2P", 11.65, 26.05, 66.10, 38.63, 83.42, 24.78, 21.72),
    _pnp("Direct Inversion", "P2P", 11.65, 27.22, 54.55, 32.86, 84.76, 25.02, 22.10),
    _pnp("DDIM", "MasaCtrl", 28.38, 22.17, 106.62, 86.97, 79.67, 23.96, 21.16),
    _pnp("Direct Inversion", "MasaCtrl", 24.70, 22.64, 87.94, 81.09, 81.33, 24.38, 21.35),
    _pnp("DDIM", "P2P-Zero", 61.68, 20.44, 172.22, 144.12, 74.67, 22.80, 20.54),
    _pnp("Direct Inversion", "P2P-Zero", 49.22, 21.53, 138.98, 127.32, 77.05, 23.31, 21.05),
    _pnp("DDIM", "PnP (SD 1.5)", 28.22, 22.28, 113.46, 83.64, 79.05, 25.41, 22.55),
    _pnp("Direct Inversion", "PnP (SD 1.5)", 24.29, 22.46, 106.06, 80.45, 79.68, 25.41, 22.62),
    _infinity("StableFlow", 21.64, 92.28, 115.21, 84.94, 24.65, 21.70, 1.88),
    _infinity("RF-Edit", 23.22, 131.18, 75.00, 81.44, 25.22, 22.40, 5.18),
    _infinity("Gemini 2.0", 23.22, 105.17, 188.63, 81.10, 25.28, 22.28, 5.30),
    _infinity("EditInfinity", 27.95, 33.08, 24.27, 92.12, 26.41, 23.47, 5.88),
)
