"""Real edits on three nodes while processes, nodes and the driver die and S3 misbehaves.

The job is submitted again whenever its driver was killed. In the end every edit is committed
exactly once, with the bytes of an undisturbed run. What dies when is drawn from a seed.

The short form runs with `make test`; the long one (`make chaos`) takes `--chaos-edits` edits and
leaves its record in out/chaos.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from farm.images import encode_png
from farm.requests import parse_request
from farm.results import EditResult
from farm.runner import PreparedEdit, load_result, prepare
from farm.storage.local import LocalStore
from farm.storage.opening import open_store
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.requests import edit_name, request_fields
from jobs.outcomes import network_passes
from tests.actors.scene_edits import pictures_of
from tests.chaos.nodes import NODES, Nodes, kill, three_nodes
from tests.chaos.proxy import Faults, faulty
from tests.farm.storage.servers import BUCKET, WireToMoto, running_with_bucket

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TENANT = "default"
PARAMETERS = {"num_steps": 8, "inner_steps": 2}
"""55 calls: 16 for gradients, the others for the steps of the samplers and around them."""
TICK = 0.25  # seconds between two looks at the driver


@dataclass(frozen=True)
class Storm:
    """How bad it gets.

    Attributes:
        edits: how many there are, each of an image of its own.
        kills: what dies, in this order.
        pause: ticks between two kills: drawn up to this.
        fault_share: of requests to the store that go wrong.
        in_flight: edits that run at once.
        seed: of everything drawn.
    """

    edits: int
    kills: tuple[str, ...]
    pause: int
    fault_share: float
    in_flight: int = 6
    seed: int = 1


class CountingWire(WireToMoto):
    """Counts the commits that the store accepted, by key."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: Counter[str] = Counter()

    def __call__(self, environ, start_response):
        def noted(status, headers, *rest):
            is_commit = environ["PATH_INFO"].endswith("COMMIT.json")
            if environ["REQUEST_METHOD"] == "PUT" and is_commit and status.startswith("200"):
                self.commits[environ["PATH_INFO"]] += 1
            return start_response(status, headers, *rest)

        return super().__call__(environ, noted)


def write_manifest(folder: Path, models: ModelSet, number: int) -> tuple[Path, list[PreparedEdit]]:
    """So many different scenes, as a user would hand them in, and as the farm knows them."""
    folder.mkdir(parents=True, exist_ok=True)
    edits: list[PreparedEdit] = []
    lines: list[str] = []
    for n, edit in enumerate(sample_edits(number, 41, ("colour", "background")), start=1):
        name = edit_name(edit, n)
        picture = encode_png(edit_truth(edit).source.images[0])
        (folder / f"{name}.png").write_bytes(picture)
        fields = request_fields(edit, name, f"{name}.png")
        fields |= {"deterministic": True, "parameters": PARAMETERS}
        lines.append(json.dumps(fields))
        edits.append(prepare(parse_request(fields), picture, models))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path, edits


@contextmanager
def undisturbed(manifest: Path, folder: Path) -> Iterator[Callable[[], LocalStore]]:
    """The same edits in processes that nobody kills, no Ray; call what is given to have them.

    They run beside the storm.
    """
    store = LocalStore(folder / "store")
    lines = manifest.read_text().splitlines()
    running: list[subprocess.Popen] = []
    try:
        processes = 1 if len(lines) < 50 else 2
        for number in range(processes):
            part = manifest.with_name(f"part-{number}.jsonl")
            part.write_text("\n".join(lines[number::processes]) + "\n")
            # last: Ray's processes are nice, and would starve beside any that is not
            command = ["nice", "-n", "19", sys.executable]
            command += ["-m", "jobs.edit_many", "--manifest", str(part)]
            command += ["--output", str(store.root), "--inline", "--no-report"]
            # one thread, as in a backbone: another number of them rounds otherwise
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            with (folder / f"{number}.log").open("wb") as log:
                running.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
                )

        def awaited() -> LocalStore:
            codes = [process.wait() for process in running]
            logs = [(folder / f"{number}.log").read_text() for number in range(len(codes))]
            assert not any(codes), logs
            return store

        yield awaited
    finally:
        for process in running:
            process.kill()
            process.wait()


@dataclass
class Killer:
    """Kills what is next on the list, some ticks after the last; the driver's end is a kill too."""

    nodes: Nodes
    storm: Storm
    killed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.storm.seed)
        self.left = list(self.storm.kills)
        self.countdown = 0
        self.rest()

    def rest(self) -> None:
        self.countdown = self.draw.randint(max(1, self.storm.pause // 2), self.storm.pause)

    def tick(self, driver: subprocess.Popen) -> None:
        trainers = self.nodes.trainers()
        if not self.left or not trainers:
            return  # before the farm stands there is nothing to lose
        self.countdown -= 1
        if self.countdown > 0:
            return
        kind = self.left[0]
        match kind:
            case "trainer":
                kill(self.draw.choice(trainers))
            case "backbone":
                found = self.nodes.backbones()
                if not found:
                    return  # it is just starting anew
                kill(self.draw.choice(found))
            case "node":
                self.nodes.replace_one(self.draw)
            case "driver":
                driver.kill()
        self.killed[self.left.pop(0)] += 1
        self.rest()


def submit_until_done(command: list[str], killer: Killer, log: Path) -> int:
    """Submit, and submit again whenever the driver was killed; how often that was."""
    for submissions in range(1, 2 + killer.storm.kills.count("driver")):
        with log.open("ab") as file:
            driver = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
            try:
                while driver.poll() is None:
                    killer.tick(driver)
                    try:
                        driver.wait(TICK)
                    except subprocess.TimeoutExpired:
                        continue
            finally:
                driver.kill()
                driver.wait()
        if driver.returncode == 0:
            return submissions
        assert driver.returncode == -9, log.read_text()[-8000:]
    raise AssertionError(log.read_text()[-8000:])


def run_storm(storm: Storm, models: ModelSet, folder: Path) -> dict:
    """The whole story; its figures."""
    manifest, edits = write_manifest(folder / "images", models, storm.edits)
    calm = folder / "calm"
    calm.mkdir()
    wire, faults = CountingWire(), Faults(storm.seed, storm.fault_share)
    started = time.monotonic()
    with (
        undisturbed(manifest, calm) as awaited,
        running_with_bucket(wire) as direct,
        faulty(direct, faults) as endpoint,
    ):
        with three_nodes() as nodes:
            uri = f"s3://{BUCKET}/chaos?endpoint_url={endpoint}&region=us-east-1"
            killer = Killer(nodes, storm)
            command = [sys.executable, "-m", "tests.chaos.driver", str(manifest), uri]
            command += [nodes.address, str(storm.in_flight), "2"]
            submissions = submit_until_done(command, killer, folder / "driver.log")
        seconds = time.monotonic() - started
        uri = f"s3://{BUCKET}/chaos?endpoint_url={direct}&region=us-east-1"
        results, alone = expect_committed_once(open_store(uri), awaited(), edits, wire)
    return {
        "edits": storm.edits,
        "seed": storm.seed,
        "seconds": round(seconds, 1),
        "killed": dict(killer.killed),
        "kills_left": killer.left,
        "submissions": submissions,
        "faults": dict(faults.served),
        "requests": faults.requests,
        "committed_edits": sum("/edits/" in key for key in wire.commits),
        "committed_stages": sum("/stages/" in key for key in wire.commits),
        "trainer_nodes": len({r.provenance.trainer_node for r in results}),
        "nodes": NODES,
        "fewest_passes": min(network_passes(r.provenance.work) for r in alone),
    }


def expect_committed_once(
    store: Store, calm: Store, edits: list[PreparedEdit], wire: CountingWire
) -> tuple[list[EditResult], list[EditResult]]:
    """Each edit once, with the pictures of the undisturbed run; the results of both."""
    results, alone = [], []
    for edit in edits:
        result = load_result(store, TENANT, edit.edit_id)
        expected = load_result(calm, TENANT, edit.edit_id)
        assert result is not None, edit.request.id
        assert expected is not None, edit.request.id
        assert pictures_of(store, result) == pictures_of(calm, expected), edit.request.id
        results.append(result)
        alone.append(expected)
    again = {key: n for key, n in wire.commits.items() if n != 1}
    assert again == {}, "committed more than once"
    assert sum("/edits/" in key for key in wire.commits) == len(edits)
    return results, alone


@pytest.mark.timeout(900)
def test_six_edits_survive_one_death_of_each_kind(models: ModelSet, tmp_path: Path) -> None:
    kills = ("trainer", "backbone", "driver", "node")
    storm = Storm(6, kills, pause=5, fault_share=0.04, in_flight=4)
    figures = run_storm(storm, models, tmp_path)
    assert figures["submissions"] == 2
    assert figures["killed"]["driver"] == 1
    assert figures["trainer_nodes"] >= 2
    assert sum(figures["faults"].values()) >= 3


@pytest.mark.chaos
@pytest.mark.timeout(5400)
def test_many_edits_survive_a_long_storm(
    models: ModelSet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    number = request.config.getoption("--chaos-edits")
    seed = request.config.getoption("--chaos-seed")
    rounds = max(1, number // 40)
    kinds = [*("trainer", "backbone", "node", "trainer", "driver") * rounds]
    random.Random(seed).shuffle(kinds)
    storm = Storm(number, tuple(kinds), pause=72, fault_share=0.05, seed=seed)
    figures = run_storm(storm, models, tmp_path)
    record = ROOT / "out" / "chaos"
    record.mkdir(parents=True, exist_ok=True)
    (record / f"{number}-edits-seed-{seed}.json").write_text(json.dumps(figures, indent=1))
    assert figures["trainer_nodes"] >= 2
    assert figures["fewest_passes"] >= 50
    assert set(figures["killed"]) == {"trainer", "backbone", "node", "driver"}
