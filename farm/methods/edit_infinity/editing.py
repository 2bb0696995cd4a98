"""Stage: the edited picture, generated scale by scale with the source kept by weight (§5.7)."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.masks import differing, dilate, feather
from farm.methods.edit_infinity.choosing import Choice, Chooser, seeds_of
from farm.methods.edit_infinity.client import Adapters, EditQuery, InfinityClient
from farm.methods.edit_infinity.codes import SourceCodes
from farm.methods.edit_infinity.config import EditingConfig
from farm.methods.edit_infinity.framing import Frame, unfit
from farm.methods.edit_infinity.region import EditRegion
from farm.progress import Progress

STAGE = "edit_infinity.editing"
AT_ONCE = 8
"""Drawings that are asked for together; between these an edit can be stopped."""

Rows = Float[Tensor, "rows text_width"]


@dataclass(frozen=True)
class Target:
    """What an edit leads to.

    Attributes:
        text: rows of the target prompt; with the instruction and the learned rows where those are
            used.
        adapters: of the source, where they are used.
        negative: rows that guidance leads away from; None: no text.
        source: rows of the source prompt, made as `text` is, whose odds decide the noise (D16);
            None: noise that knows no source.
    """

    text: Rows
    adapters: Adapters | None = None
    negative: Float[Tensor, "other_rows text_width"] | None = None
    source: Float[Tensor, "source_rows text_width"] | None = None


@dataclass(frozen=True)
class EditOutput:
    """What an edit gives.

    Attributes:
        image: the edited picture of the layout's size, in [0, 1].
        mask: where it may differ from the source at all, 0 or 1.
        figures: plain numbers about this edit.
        source: the picture that the source's bits stand for.
        drawings: all of which one was chosen, of the layout's size.
        choice: which, and why; None where there was one alone.
    """

    image: Float[Tensor, "3 image_height image_width"]
    mask: Float[Tensor, "1 image_height image_width"]
    figures: dict[str, float]
    source: Float[Tensor, "3 image_height image_width"]
    drawings: tuple[Float[Tensor, "3 image_height image_width"], ...] = ()
    choice: Choice | None = None


def edit(
    codes: SourceCodes,
    target: Target,
    region: EditRegion,
    client: InfinityClient,
    config: EditingConfig,
    *,
    seed: int,
    chooser: Chooser | None = None,
) -> Generator[Progress, None, EditOutput]:
    """Generate the target and keep of the source what the region says.

    Costs the work of one forward pass, of two with guidance, and a decoding, for each candidate;
    of several one is chosen (D14). The source's noise costs such a pass for all of them (D16).

    Args:
        codes: the source.
        target: what to make.
        region: where.
        client: the frozen model.
        config: numbers.
        seed: of the draws.
        chooser: of one among several candidates; nobody asks it where there is one alone.
    """
    layout = client.model.schedule(codes.layout)
    query = EditQuery(
        text=target.text,
        bits=codes.bits,
        weight=region.weight,
        guidance=(config.guidance,) * layout.num_scales,
        temperature=(config.tau,) * layout.num_scales,
        seed=seed,
        top_k=config.top_k,
        top_p=config.top_p,
        insertion=config.cfg_insertion,
        adapters=target.adapters,
        negative=target.negative,
    )
    if target.source is not None:
        query = replace(query, log_odds=client.log_odds(query, target.source, layout))
    queries = [replace(query, seed=drawn) for drawn in seeds_of(seed, config.candidates)]
    drawn: list[tuple[Tensor, Tensor]] = []
    for group in _groups(queries):
        drawn += client.edit_all(group, layout)
        newest = drawn[-1][0]
        yield Progress(STAGE, len(drawn), len(queries), preview=lambda newest=newest: newest)
    choice = None
    if len(drawn) > 1:
        assert chooser is not None, "several candidates are planned with somebody who chooses"
        choice = chooser.choose(codes.image, [image for image, _ in drawn], region.inside)
    image, bits = drawn[0 if choice is None else choice.number]
    changed = (_bits(bits) != _bits(codes.bits)).float().mean().item()
    output = _output(codes, image, region, {"changed_bits": changed})
    return replace(output, drawings=tuple(image for image, _ in drawn), choice=choice)


def recalled(
    codes: SourceCodes,
    text: Rows,
    client: InfinityClient,
    adapters: Adapters | None = None,
    *,
    seed: int,
) -> Float[Tensor, "3 image_height image_width"]:
    """What the model draws of the source by what it has learned, each bit the likelier value.

    Costs the work of one forward pass and a decoding.
    """
    layout = client.model.schedule(codes.layout)
    query = EditQuery(
        text=text,
        bits=codes.bits,
        weight=torch.zeros(layout.latent_size),
        guidance=(1.0,) * layout.num_scales,
        temperature=(1.0,) * layout.num_scales,
        seed=seed,
        top_k=1,
        top_p=0.0,
        adapters=adapters,
    )
    return client.edit(query, layout)[0]


def keep_source(codes: SourceCodes, region: EditRegion) -> EditOutput:
    """What is given where the attention map alone is asked for: the source's own bits."""
    return _output(codes, codes.image, region, {"changed_bits": 0.0})


def restored(
    output: EditOutput,
    original: Float[Tensor, "3 height width"],
    frame: Frame,
    config: EditingConfig,
    *,
    stride: int,
) -> Float[Tensor, "3 height width"]:
    """The edited picture in the original, at the original's resolution.

    Args:
        output: of `edit`.
        original: as handed in.
        frame: what of it the layout shows.
        config: whether the original's own pixels are kept where the source was to stay whole (D9);
            a soft border of a latent cell hides what the autoencoder alone changes there. And how
            much a pixel must have changed (D15).
        stride: pixels per latent cell.
    """
    if not config.paste_back:
        return unfit(output.image, original, frame)
    mask = _softened(output.mask, max(1, stride // 2))
    if config.paste_threshold > 0:
        window = stride // 2 | 1
        changed = differing(output.image, output.source, config.paste_threshold, window)
        mask = mask * _softened(changed, max(1, stride // 8))
    return unfit(output.image, original, frame, mask)


def _softened(
    mask: Float[Tensor, "1 height width"], border: int
) -> Float[Tensor, "1 height width"]:
    """A mask that is whole where it was, and fades around."""
    return feather(dilate(mask, border), border)


def _output(
    codes: SourceCodes,
    image: Float[Tensor, "3 image_height image_width"],
    region: EditRegion,
    figures: dict[str, float],
) -> EditOutput:
    size = tuple(image.shape[-2:])
    touched = (region.weight < 1).float()
    mask = F.interpolate(touched[None, None], size=size)[0]
    figures = figures | {
        "mask_share": region.cells.float().mean().item(),
        "kept_weight": region.weight.mean().item(),
        "change": (image - codes.image).square().mean().sqrt().item(),
    }
    return EditOutput(image, mask, figures, codes.image)


def _bits(packed: Tensor) -> Tensor:
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8)
    return (packed[:, None] >> shifts) & 1


def _groups(queries: Sequence[EditQuery]) -> Iterator[Sequence[EditQuery]]:
    return (queries[first : first + AT_ONCE] for first in range(0, len(queries), AT_ONCE))
