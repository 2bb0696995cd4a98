"""The process that the chaos test submits a job with, and kills: `edit-many` on fake accelerators.

python -m tests.chaos.driver MANIFEST STORE ADDRESS IN_FLIGHT REPLICAS
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from actors.edits import load_host
from actors.farm_session import open_farm
from actors.local import local_ray
from cluster.table import TABLE
from farm.storage.patient import PatientStore
from jobs.batch import OpenRunner
from jobs.dispatch import Limits
from jobs.job import JobOptions, run_job
from jobs.runners import FarmRunner
from jobs.submission import Submission, ended_by_signal, open_batch

FAKE = TABLE.backbone_on_gpu.model_copy(update={"num_cpus": 0})


def opener(batch, address: str, replicas: int) -> OpenRunner:
    @contextmanager
    def open_runner() -> Iterator[FarmRunner]:
        with (
            local_ray(address=address),
            open_farm(
                partial(load_host, batch.model_set),
                replicas=replicas,
                placement=FAKE,
                device="cpu",
            ) as farm,
        ):
            yield FarmRunner(farm, PatientStore(batch.store), batch.tenant)

    return open_runner


def main() -> int:
    manifest, output, address, in_flight, replicas = sys.argv[1:]
    submission = Submission(manifest, output, max_in_flight=int(in_flight))
    limits = Limits(in_flight=int(in_flight), hang_seconds=120.0, patience=120.0)
    with open_batch(submission) as batch, ended_by_signal():
        runner = opener(batch, address, int(replicas))
        return run_job(batch, runner, JobOptions(limits=limits)).exit_code


if __name__ == "__main__":
    sys.exit(main())
