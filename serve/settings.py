"""How a door is set up: one document for a laptop, a Serve config file and a cluster."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from farm.storage.opening import open_store
from serve.limits import RequestLimits

TENANT = "default"
"""Whose edits they are where no keys are asked for: the same as the command line's."""


class Settings(BaseModel):
    """Arguments of the Serve application; everything has a default that is safe on a laptop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: str = "out/store"
    """Path, file:// or s3://bucket/prefix; every replica must see it."""
    model_set: str = "scenes"
    beside: tuple[str, ...] = ()
    """Model sets that other doors of the same cluster serve on the same accelerators: each takes a
    share of a device by its memory, where a backbone otherwise takes all of one."""
    keys_file: Path | None = None
    """Tenants and the digests of their keys; without one, only loopback is served."""
    image_stores: dict[str, str] = {}
    """Stores, by name, in which requests may name images and manifests: `name://key`."""
    webhook_hosts: tuple[str, ...] = ()
    """`host` or `host:port` that webhooks may go to; all others are refused."""
    limits: RequestLimits = RequestLimits()
    max_queue: Annotated[int, Field(gt=0)] = 10_000
    """Edits accepted and not finished, of all tenants."""
    max_in_flight: Annotated[int, Field(gt=0)] = 8
    """Edits that run at once."""
    max_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """After which an edit that still runs is ended."""
    backbones: Annotated[int, Field(gt=0)] = 1
    """Backbone actors that are always there."""
    max_backbones: Annotated[int, Field(gt=0)] = 1
    """How many there may be while queues are long."""
    replicas: Annotated[int, Field(gt=0)] = 1
    """Of the HTTP side, which is stateless."""
    log_prompts: bool = False
    """Whether prompts may appear in logs."""

    def absolute(self) -> "Settings":
        """The same for processes with other working directories.

        Raises:
            StoreError: a store's address is none.
        """
        folder = Path(self.model_set)
        return self.model_copy(
            update={
                "store": open_store(self.store).uri,
                "image_stores": {n: open_store(uri).uri for n, uri in self.image_stores.items()},
                "keys_file": None if self.keys_file is None else self.keys_file.absolute(),
                "model_set": str(folder.absolute()) if folder.is_dir() else self.model_set,
            }
        )
