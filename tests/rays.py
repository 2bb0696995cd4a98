"""A Ray for one folder of tests."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from actors.local import local_ray


@contextmanager
def own_ray(num_cpus: int) -> Iterator[None]:
    """One of our own, whatever the environment says, in a folder with a short path.

    A process has one Ray: two of them would be the same, with the first one's ports.
    """
    assert not ray.is_initialized(), "another test's Ray is still there: give this one a file"
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    with local_ray(num_cpus=num_cpus, num_gpus=0, address="local", temp_dir=folder):
        yield
    shutil.rmtree(folder, ignore_errors=True)
