"""`ray job submit --working-dir . -- python -m jobs.edit_many …` on a cluster of our own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.logical_nodes import logical_cluster
from farm.runner import load_result
from farm.storage.local import LocalStore
from jobs.outcomes import DoneEdit, parse_outcome

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos]

ROOT = Path(__file__).parents[2]
BINARIES = Path(sys.executable).parent
NO_AGENT = "No available agent to submit job"
AGENT_SECONDS = 120.0
"""A node answers some time before its agent takes jobs."""


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address to which jobs are submitted; nobody without this process's token may."""
    # what `python` is in a job's command is the cluster's to say
    monkeypatch.setenv("PATH", f"{BINARIES}{os.pathsep}{os.environ['PATH']}")
    with logical_cluster(
        num_cpus=2,
        num_gpus=0,
        include_dashboard=True,
        dashboard_port=0,
        object_store_memory=100 * 2**20,
    ) as cluster:
        yield f"http://{cluster.head_node.webui_url}"


def test_a_submitted_job_runs_on_its_cluster_and_again_does_nothing(
    dashboard: str, tiny_set: str, manifest, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "store")
    path = manifest({"id": "blue"}, {"id": "green", "target_prompt": "a green ball"})
    command = [str(BINARIES / "ray"), "job", "submit", "--address", dashboard]
    command += ["--working-dir", ".", "--", "python", "-m", "jobs.edit_many"]
    command += ["--manifest", path, "--output", str(store.root), "--model-set", tiny_set]

    def submit() -> str:
        patience = time.monotonic() + AGENT_SECONDS
        while True:
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            said = done.stdout.decode()
            if NO_AGENT not in said or time.monotonic() > patience:
                assert done.returncode == 0, said
                return said
            time.sleep(2)

    assert "2 edits to do" in submit()
    (outcomes,) = store.root.glob("tenants/default/jobs/*/outcomes.jsonl")
    for line in outcomes.read_bytes().splitlines():
        outcome = parse_outcome(line)
        assert isinstance(outcome, DoneEdit)
        assert load_result(store, "default", outcome.result.edit_id) is not None
    assert "0 edits to do, 2 in the store" in submit()
