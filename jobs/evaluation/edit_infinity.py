"""EditInfinity in the evaluation: its own autoencoder's bound, and what the inversion brought."""

import json
from collections.abc import Hashable

from farm.calls import Executor
from farm.runner import PreparedEdit
from farm.runner.edit_infinity import unpack_codes
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
        return Found(edit.map("mask.png"), edit.map("attention.png"), rebuilt, own)
