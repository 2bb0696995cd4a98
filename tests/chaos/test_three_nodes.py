"""Real edits on three nodes while processes, nodes and the driver die and S3 misbehaves.

The job is submitted again whenever its driver was killed. In the end every edit is committed
exactly once, with the bytes of an undisturbed run. What dies when is drawn from a seed.

The short form runs with `make test`; the long one (`make chaos`) takes `--chaos-edits` edits and
leaves its record in out/chaos.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from farm.images import encode_png
from farm.requests import parse_request
from farm.runner import PreparedEdit, load_result, prepare
from farm.storage.local import LocalStore
from farm.storage.opening import open_store
from farm.zoo.model_sets import ModelSet
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.requests import edit_name, request_fields
from jobs.dispatch import Dispatcher, Limits
from jobs.inline import open_inline
from tests.actors.scene_edits import pictures_of
from tests.chaos.nodes import Nodes, kill, three_nodes
from tests.chaos.proxy import Faults, faulty
from tests.farm.storage.servers import BUCKET, WireToMoto, running_with_bucket

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TENANT = "default"
PARAMETERS = {"num_steps": 8, "inner_steps": 6}
"""48 calls for gradients alone, and one more for each step of the samplers."""
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


def undisturbed(models: ModelSet, edits: list[PreparedEdit], folder: Path) -> dict[str, dict]:
    """Pictures of each edit, made in this process: no Ray, nothing dies."""
    store = LocalStore(folder)
    pictures = {}
    with open_inline(models, store, TENANT) as runner:
        named = [(edit.edit_id, edit) for edit in edits]
        for ended in Dispatcher(runner.flight(), Limits(in_flight=1)).run(named):
            pictures[ended.name] = pictures_of(store, ended.outcome)
    return pictures


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
    expected = undisturbed(models, edits, folder / "undisturbed")
    wire, faults = CountingWire(), Faults(storm.seed, storm.fault_share)
    started = time.monotonic()
    with running_with_bucket(wire) as direct, faulty(direct, faults) as endpoint:
        with three_nodes() as nodes:
            uri = f"s3://{BUCKET}/chaos?endpoint_url={endpoint}&region=us-east-1"
            killer = Killer(nodes, storm)
            command = [sys.executable, "-m", "tests.chaos.driver", str(manifest), uri]
            command += [nodes.address, str(storm.in_flight), "2"]
            submissions = submit_until_done(command, killer, folder / "driver.log")
        seconds = time.monotonic() - started
        calm = f"s3://{BUCKET}/chaos?endpoint_url={direct}&region=us-east-1"
        results = expect_committed_once(calm, edits, expected, wire)
    return {
        "edits": storm.edits,
        "seconds": round(seconds, 1),
        "killed": dict(killer.killed),
        "kills_left": killer.left,
        "submissions": submissions,
        "faults": dict(faults.served),
        "trainer_nodes": len({r.provenance.trainer_node for r in results}),
        "fewest_passes": min(sum(r.provenance.work.values()) for r in results),
    }


def expect_committed_once(uri: str, edits, expected, wire: CountingWire) -> list:
    store = open_store(uri)
    results = []
    for edit in edits:
        result = load_result(store, TENANT, edit.edit_id)
        assert result is not None, edit.request.id
        assert pictures_of(store, result) == expected[edit.edit_id], edit.request.id
        results.append(result)
    again = {key: n for key, n in wire.commits.items() if n != 1}
    assert again == {}, "committed more than once"
    committed = [key for key in wire.commits if "/edits/" in key]
    assert len(committed) == len(edits)
    return results


@pytest.mark.timeout(900)
def test_six_edits_survive_one_death_of_each_kind(models: ModelSet, tmp_path: Path) -> None:
    storm = Storm(6, ("trainer", "backbone", "driver", "node"), pause=6, fault_share=0.04)
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
    rounds = max(1, number // 25)
    kinds = [*("trainer", "backbone", "node", "trainer", "driver") * rounds]
    random.Random(seed).shuffle(kinds)
    storm = Storm(number, tuple(kinds), pause=40, fault_share=0.05, seed=seed)
    figures = run_storm(storm, models, tmp_path)
    record = ROOT / "out" / "chaos"
    record.mkdir(parents=True, exist_ok=True)
    (record / f"{number}-edits-seed-{seed}.json").write_text(json.dumps(figures, indent=1))
    assert figures["trainer_nodes"] >= 2
    assert figures["fewest_passes"] >= 50
    assert set(figures["killed"]) == {"trainer", "backbone", "node", "driver"}
