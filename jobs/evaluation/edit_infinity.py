"""EditInfinity in the evaluation: its own autoencoder's bound, and what the inversion brought."""

import json
from collections.abc import Hashable

import torch.nn.functional as F

from farm.calls import Executor
from farm.images import decode_image
from farm.metrics.psnr import psnr
from farm.runner import PreparedEdit
from farm.runner.edit_infinity import unpack_codes
from farm.storage.tensors import unpack_tensors
from farm.zoo.scenes.edits import EditTruth
from jobs.evaluation.finished import Finished
from jobs.evaluation.measures import Bounds, Found, Image

_COPIED = (
    "bit_accuracy_before",
    "bit_accuracy_prompt",
    "bit_accuracy_lora",
    "changed_bits",
    "mask_share",
)


class EditInfinityMeasures:
    """See `jobs.evaluation.measures.Measures`."""

    def same_bounds(self, prepared: PreparedEdit) -> Hashable:
        del prepared
        return "edit_infinity"

    def bounds(self, executor: Executor, edit: Finished, source: Image) -> Bounds:
        """The source from its own bits, which the first stage keeps."""
        del executor, source
        return Bounds(unpack_codes(edit.stage("codes")).image)

    def found(self, edit: Finished, truth: EditTruth) -> Found:
        del truth
        figures = json.loads(edit.output("metrics.json"))
        own = {name: figures[name] for name in _COPIED if name in figures}
        rebuilt = edit.picture("reconstruction.png")
        own |= _beyond_the_ramp(edit, rebuilt)
        return Found(edit.map("mask.png"), edit.map("attention.png"), rebuilt, own)


def _beyond_the_ramp(edit: Finished, rebuilt: Image) -> dict[str, float]:
    """PSNR where the source alone counted, and its bound: what an edit does where it means not to.

    That is a latent cell beyond the ramp of weights: neighbouring cells are decoded together.
    `outside_psnr` is about what truly changes, and a region has room around that.
    """
    source, edited = decode_image(edit.prepared.image).image, edit.picture("edited.png")
    weight = unpack_tensors(edit.output("weight_tensor.safetensors"))[0]["weight"]
    reach = F.max_pool2d((weight < 1).float()[None, None], 3, stride=1, padding=1)
    kept = 1 - F.interpolate(reach, source.shape[-2:])
    return {
        "beyond_ramp_psnr": psnr(edited[None], source[None], kept).item(),
        "beyond_ramp_bound_psnr": psnr(rebuilt[None], source[None], kept).item(),
    }
