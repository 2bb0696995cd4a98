"""StyleDiffusion in the evaluation: its reconstruction, and plain DDIM at the same guidance."""

from collections.abc import Hashable

from farm.calls import Executor
from farm.diffusion import DiffusionClient
from farm.errors import InvalidRequestError
from farm.methods.style_diffusion.sampling import reconstruct
from farm.runner import PreparedEdit
from farm.runner.style_diffusion import StyleDiffusionRun, unpack_inversion
from farm.zoo.scenes.edits import EditTruth
from jobs.evaluation.finished import Finished
from jobs.evaluation.measures import Bounds, Found, Image, autoencoded

PLAIN_DDIM = "plain_ddim_psnr"


class StyleDiffusionMeasures:
    """See `jobs.evaluation.measures.Measures`."""

    def same_bounds(self, prepared: PreparedEdit) -> Hashable:
        config = _run(prepared).config.inversion
        return ("style_diffusion", config.num_steps, config.guidance_scale)

    def bounds(self, executor: Executor, edit: Finished, source: Image) -> Bounds:
        client = DiffusionClient(executor, edit.prepared.model_set.spec)
        plain = client.decode(reconstruct(unpack_inversion(edit.stage()), client))
        return Bounds(autoencoded(executor, edit.prepared, source), {PLAIN_DDIM: plain})

    def found(self, edit: Finished, truth: EditTruth) -> Found:
        del truth
        rebuilt = edit.picture("reconstruction.png")
        return Found(edit.map("mask.png"), edit.map("attention.png"), rebuilt)


def _run(prepared: PreparedEdit) -> StyleDiffusionRun:
    if not isinstance(prepared.method, StyleDiffusionRun):
        raise InvalidRequestError(
            f"found an edit by {prepared.request.method}, expected style_diffusion"
        )
    return prepared.method
