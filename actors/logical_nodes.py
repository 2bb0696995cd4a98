"""A cluster of logical nodes on this machine: for tests of what nodes do, and for measuring it."""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._common.utils import get_ray_address_file
from ray.cluster_utils import Cluster

from actors.local import require_token


@contextmanager
def logical_cluster(**head: Any) -> Generator[Cluster]:
    """A head node for the time of a `with`; `Cluster.add_node` adds others.

    Nobody without this process's token can use it.

    Args:
        head: options of the head, as `Cluster.add_node` takes them.
    """
    require_token()
    # Ray notes the head's address there, whatever folder it is given, and expects it to exist
    Path(get_ray_address_file(None)).parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))  # short: sockets lie in it
    cluster = Cluster()
    try:
        cluster.add_node(temp_dir=str(folder), **head)
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
