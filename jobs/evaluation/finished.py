"""A finished edit and what it left in the store, for those who measure it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from farm.errors import InvalidRequestError
from farm.images import decode_image
from farm.masks import decode_mask
from farm.results import EditResult
from farm.runner import PreparedEdit, load_output, load_stage
from farm.runner.method import Files
from farm.storage.store import Store


@dataclass(frozen=True)
class Finished:
    """An edit that is done.

    Attributes:
        store: where it is.
        tenant: whose it is.
        prepared: what was asked.
        result: its files; None of a baseline, which leaves none.
    """

    store: Store
    tenant: str
    prepared: PreparedEdit
    result: EditResult | None

    def output(self, name: str) -> bytes:
        """An output by file name.

        Raises:
            InvalidRequestError: the edit has no such output.
        """
        if self.result is None:
            raise InvalidRequestError(
                f"found no outputs, expected {name}: a baseline leaves a picture alone"
            )
        return load_output(self.store, self.result, name)

    def picture(self, name: str) -> Float[Tensor, "3 height width"]:
        """An output that is a picture, in [0, 1]; raises as `output`."""
        return decode_image(self.output(name)).image

    def map(self, name: str) -> Float[Tensor, "height width"] | None:
        """An output with one channel, in [0, 1]; None where the edit has none of this name."""
        if self.result is None or name not in self.result.files:
            return None
        return decode_mask(self.output(name))[0]

    def stage(self, name: str | None = None) -> Files:
        """Files of a stage by its name; of the last one where none is named.

        Raises:
            InvalidRequestError: it is not in the store.
        """
        stages = self.prepared.stages
        digest = self.prepared.stage_digest if name is None else stages[name]
        return load_stage(self.store, self.tenant, digest)
