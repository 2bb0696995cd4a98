"""A Ray to work with: the cluster we are in, or one of our own on this machine."""

import logging
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ray
from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue] - compiled

from actors.placement import Accelerator, backbone_placement
from actors.pools import has_pools
from cluster.table import TABLE

_CLUSTER_VARIABLES = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")  # the second in a submitted job


@contextmanager
def local_ray(
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    address: str | None = None,
    temp_dir: Path | None = None,
) -> Generator[bool]:
    """Ray for the time of a `with`; only a Ray that was started here is stopped at the end.

    Gives whether it was started here: such a Ray never gets more machines than this one.

    In order: a Ray this process is connected to; `address`; the cluster that the environment
    names, as in a submitted job; else one of our own, without a dashboard, that nobody without its
    random token can use.

    Args:
        num_cpus: of a Ray of our own; all if None, and at least 2, as a backbone takes one.
        num_gpus: of a Ray of our own; all if None.
        address: of a cluster to join; "local" to start one whatever the environment says.
        temp_dir: sessions and logs of a Ray of our own. By default RAY_TMPDIR, or a folder that is
            removed afterwards. Short: sockets lie in it, and their paths end at 107 characters.
    """
    if ray.is_initialized():
        yield False
        return
    if address is None and any(name in os.environ for name in _CLUSTER_VARIABLES):
        address = os.environ.get("RAY_ADDRESS", "auto")
    with ExitStack() as stack:
        is_own = address is None or address == "local"
        if is_own:
            _start(num_cpus, num_gpus, _session_folder(temp_dir, stack))
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        stack.callback(ray.shutdown)
        yield is_own


def _start(num_cpus: int | None, num_gpus: int | None, folder: Path) -> None:
    require_token()
    with _interruptible_children():
        ray.init(
            address="local",  # never somebody's cluster that happens to be found
            num_cpus=num_cpus or max(2, os.cpu_count() or 1),  # a backbone and its trainers
            num_gpus=num_gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=TABLE.local_ray.object_store_bytes,
            _temp_dir=str(folder),
            _system_config={"max_direct_call_object_size": TABLE.local_ray.inline_bytes},
        )


@contextmanager
def _interruptible_children() -> Generator[None]:
    """Processes that are started meanwhile do not ignore SIGINT, even where this one does.

    A shell lets what a script starts in the background ignore it, and children inherit that. Ray
    cancels tasks by it.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in children: as by default
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def require_token() -> None:
    """Let nobody in who does not know a token of this process and its children.

    Ray listens on all interfaces and runs whatever it is sent. Left to itself it would write a
    token into the home directory, for every later Ray on this machine to find.
    """
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        Config.initialize("")  # Ray read the environment when it was imported


def _session_folder(chosen: Path | None, stack: ExitStack) -> Path:
    if chosen is not None:
        return chosen.absolute()
    if "RAY_TMPDIR" in os.environ:
        return Path(os.environ["RAY_TMPDIR"]).absolute()
    # processes that are still ending may write while it is removed
    folder = tempfile.TemporaryDirectory(prefix="farm-", ignore_cleanup_errors=True)
    return Path(stack.enter_context(folder))


def most_backbones() -> int:
    """How many backbones the Ray of this process has room for now, beside a trainer of edits."""
    row, found = backbone_placement(accelerator()), ray.cluster_resources()
    most = (found.get("CPU", 0) - TABLE.trainer.num_cpus) / row.num_cpus
    if row.num_gpus:
        most = min(most, found.get("GPU", 0) / row.num_gpus)
    return int(most)


def gpu_count() -> int:
    """GPUs that the Ray of this process has now; machines that could start are not counted."""
    return int(ray.cluster_resources().get("GPU", 0))


def accelerator() -> Accelerator:
    """The device for backbones: CUDA where Ray has GPUs to give or can start some, else the CPU."""
    return "cuda" if gpu_count() > 0 or has_pools() else "cpu"
