"""StyleDiffusion in the evaluation: its reconstruction, and plain DDIM at the same guidance."""

from collections.abc import Hashable

from farm.calls import Executor
from farm.diffusion import DiffusionClient
from farm.errors import InvalidRequestError
from farm.images import decode_image
from farm.masks import decode_mask
from farm.methods.style_diffusion.sampling import reconstruct
from farm.results import EditResult
from farm.runner import PreparedEdit, load_output, load_stage
from farm.runner.style_diffusion import StyleDiffusionRun, unpack_inversion
from farm.storage.store import Store
from farm.zoo.scenes.edits import EditTruth
from jobs.evaluation.measures import Bounds, Found, Image, autoencoded

PLAIN_DDIM = "plain_ddim_psnr"


class StyleDiffusionMeasures:
    """See `jobs.evaluation.measures.Measures`."""

    def same_bounds(self, prepared: PreparedEdit) -> Hashable:
        config = _run(prepared).config.inversion
        return ("style_diffusion", config.num_steps, config.guidance_scale)

    def bounds(
        self, executor: Executor, store: Store, tenant: str, prepared: PreparedEdit, source: Image
    ) -> Bounds:
        client = DiffusionClient(executor, prepared.model_set.spec)
        inversion = unpack_inversion(load_stage(store, tenant, prepared.stage_digest))
        plain = client.decode(reconstruct(inversion, client))
        return Bounds(autoencoded(executor, prepared, source), {PLAIN_DDIM: plain})

    def found(
        self,
        store: Store,
        tenant: str,
        prepared: PreparedEdit,
        result: EditResult,
        truth: EditTruth,
    ) -> Found:
        del tenant, prepared, truth
        attention = mask = None
        if "attention.png" in result.files:
            attention = decode_mask(load_output(store, result, "attention.png"))[0]
        if "mask.png" in result.files:
            mask = decode_mask(load_output(store, result, "mask.png"))[0]
        rebuilt = decode_image(load_output(store, result, "reconstruction.png")).image
        return Found(mask, attention, rebuilt)


def _run(prepared: PreparedEdit) -> StyleDiffusionRun:
    if not isinstance(prepared.method, StyleDiffusionRun):
        raise InvalidRequestError(
            f"found an edit by {prepared.request.method}, expected style_diffusion"
        )
    return prepared.method
