"""EditInfinity in the evaluation: its own autoencoder's bound, and what the inversion brought."""

import json
from collections.abc import Hashable

from farm.calls import Executor
from farm.images import decode_image
from farm.masks import decode_mask
from farm.results import EditResult
from farm.runner import PreparedEdit, load_output, load_stage
from farm.runner.edit_infinity import unpack_codes
from farm.storage.store import Store
from farm.zoo.scenes.edits import EditTruth
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

    def bounds(
        self, executor: Executor, store: Store, tenant: str, prepared: PreparedEdit, source: Image
    ) -> Bounds:
        """The source from its own bits, which the first stage keeps."""
        del executor, source
        return Bounds(unpack_codes(load_stage(store, tenant, prepared.stages["codes"])).image)

    def found(
        self,
        store: Store,
        tenant: str,
        prepared: PreparedEdit,
        result: EditResult,
        truth: EditTruth,
    ) -> Found:
        del tenant, prepared, truth
        attention = None
        if "attention.png" in result.files:
            attention = decode_mask(load_output(store, result, "attention.png"))[0]
        mask = decode_mask(load_output(store, result, "mask.png"))[0]
        rebuilt = decode_image(load_output(store, result, "reconstruction.png")).image
        figures = json.loads(load_output(store, result, "metrics.json"))
        own = {name: figures[name] for name in _COPIED if name in figures}
        return Found(mask, attention, rebuilt, own)
