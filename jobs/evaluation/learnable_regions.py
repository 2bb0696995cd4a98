"""Learnable Regions in the evaluation: the box that won, the boxes it could choose, its losses."""

import json
from collections.abc import Hashable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from farm.calls import Executor
from farm.masks import Box, iou
from farm.methods.learnable_regions.searched import Search
from farm.runner import PreparedEdit
from farm.runner.learnable_regions import unpack_search
from farm.zoo.scenes.edits import EditTruth
from jobs.evaluation.finished import Finished
from jobs.evaluation.measures import Bounds, Found, Image, Map, autoencoded

FULL_RENDERS = 99
"""That the released program's README command draws for one edit."""
_COPIED = (
    "loss",
    "loss_clip",
    "loss_directional",
    "loss_structure",
    "misfit",
    "text_similarity",
    "image_similarity",
    "full_renders_worth",
)


class LearnableRegionsMeasures:
    """See `jobs.evaluation.measures.Measures`."""

    def same_bounds(self, prepared: PreparedEdit) -> Hashable:
        del prepared
        return "learnable_regions"

    def bounds(self, executor: Executor, edit: Finished, source: Image) -> Bounds:
        return Bounds(autoencoded(executor, edit.prepared, source))

    def found(self, edit: Finished, truth: EditTruth) -> Found:
        regions = json.loads(edit.output("regions.json"))
        metrics = json.loads(edit.output("metrics.json"))
        search = unpack_search(edit.stage())
        region = (truth.region > 0.5).float()
        size = region.shape[-1]
        saliency = F.interpolate(search.state.saliency[None, None], (size, size), mode="bilinear")
        return Found(
            mask=_filled(Box(*regions["winner"]["box"]), region),
            map=saliency[0, 0],
            figures=_figures(regions, metrics, search, region),
        )


def _filled(box: Box, like: Map) -> Map:
    """A box as a mask."""
    mask = torch.zeros_like(like)
    mask[max(box.top, 0) : max(box.bottom, 0), max(box.left, 0) : max(box.right, 0)] = 1
    return mask


def _figures(
    regions: Mapping[str, Any], metrics: Mapping[str, float], search: Search, region: Map
) -> dict[str, float]:
    """What the boxes allow, what was chosen, and what training did; of one edit."""
    anchors, sizes = search.state.table.shape
    masks = torch.stack(
        [_filled(Box(*box), region) for box in search.state.boxes.flatten(0, 1).tolist()]
    )
    overlaps = iou(masks[:, None], region.expand_as(masks)[:, None]).view(anchors, sizes)
    rows, columns = search.chosen.T
    figures = {
        "oracle_iou": overlaps.amax().item(),
        "chosen_iou": overlaps[rows, columns].mean().item(),
        "finalists_iou": max(
            overlaps[c["anchor"], c["size"]].item()
            for c in regions["candidates"]
            if c["final_score"] is not None
        ),
        "renders_share": metrics["full_renders_worth"] / FULL_RENDERS,
        **{name: metrics[name] for name in _COPIED},
    }
    table = search.state.table
    if table.isfinite().all():
        figures["chosen_loss"] = table[rows, columns].mean().item()
        figures["argmin_loss"] = table.amin(dim=1).mean().item()
    if len(search.curve) > 1 and "expected_loss_after" in metrics:
        before, after = metrics["expected_loss_before"], metrics["expected_loss_after"]
        figures |= {
            "expected_loss_before": before,
            "expected_loss_after": after,
            "expected_loss_fell": float(after < before),
        }
    return figures
