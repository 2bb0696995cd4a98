"""A farm of 1 000 accelerators and ten million edits a day, on paper: what it needs, what breaks.

    python -m benchmarks.farm_plan
    python -m benchmarks.farm_plan --accelerators 500 --edits 2000000 --json out/plan.json

Figures come from counts (requests of an edit, calls, tasks) and from what was measured on two
shared cores (rates of Ray). A simulation of one shard checks the arithmetic: arrivals, batches,
spot machines that go. It takes some seconds and no Ray. Nothing here was measured on a GPU: the
accelerator seconds of an edit are an assumption, and `--seconds` is where yours go.
"""

import json
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cluster.nodes import NODES, TRAINER_GIB
from cluster.table import TABLE

DAY = 86_400.0

# counted: requests to the store of one StyleDiffusion edit, of one stage and five files; listings
# are gets. A test counts them again. Checkpoints and renewals of leases come on top, by time.
NEW_IMAGE = {"puts": 11, "gets": 12}
"""With its inversion."""
KNOWN_IMAGE = {"puts": 7, "gets": 6}
"""Another target of the same image."""
CHECKPOINT_SECONDS = 10.0
LEASE_RENEWALS = 3 / 20.0
"""Each second: a lease of 20 s is renewed at a third of its time."""
CALLS = 738
"""Calls to a backbone: forward and backward passes of a scenes edit of the default budget."""

# measured on two shared cores, so lower bounds (docs/performance.md, decision 2)
TASKS_PER_SECOND = 1_900.0
ACTOR_CALLS_PER_SECOND = 3_700.0
"""Of one asynchronous actor."""
BOARD_PUSHES = 5.0
"""Each second, of one trainer to the progress board."""
BATCH_GAIN = ((1, 1.0), (2, 1.21), (4, 1.43), (8, 1.57), (16, 1.60))
"""How much more a batch does than single items: of the prototype, on one core."""

# as documented by Amazon S3, for each prefix that it has split off
PUTS_PER_SECOND = 3_500.0
GETS_PER_SECOND = 5_500.0


@dataclass(frozen=True)
class Load:
    """What is asked of the farm.

    Attributes:
        accelerators: that it has.
        edits: a day.
        seconds: of an accelerator, for an edit of a new image computed alone.
        known: share of edits whose image was inverted before.
        editing: share of `seconds` that an edit of such an image still costs.
        in_flight: edits that one accelerator works on at once.
        shards: clusters, each with its own jobs.
        notices: spot machines that are taken away, each of them, a day.
    """

    accelerators: int = 1_000
    edits: int = 10_000_000
    seconds: float = 11.6
    known: float = 0.5
    editing: float = 0.15
    in_flight: int = 8
    shards: int = 10
    notices: float = 1.0

    @property
    def rate(self) -> float:
        """Edits a second."""
        return self.edits / DAY

    @property
    def mean_seconds(self) -> float:
        """Accelerator seconds of the mean edit, computed alone."""
        return self.seconds * (1 - self.known * (1 - self.editing))


def gain(batch: float) -> float:
    """How many times the work of single items a batch does in the same time."""
    sizes, gains = zip(*BATCH_GAIN, strict=True)
    return float(np.interp(batch, sizes, gains))


@dataclass(frozen=True)
class Plan:
    """What follows."""

    edits_per_second: float
    accelerators_busy: float
    """Share of time; above 1 the load does not fit."""
    largest_seconds: float
    """Accelerator seconds of a mean edit that would just fit at 80 % busy."""
    trainers: int
    trainer_nodes: int
    trainer_memory_gib: float
    puts_per_second: float
    gets_per_second: float
    calls_per_second: float
    tasks_per_second: float
    board_pushes_per_shard: float
    dollars_per_hour: float
    dollars_per_thousand_edits: float


def plan(load: Load) -> Plan:
    """The arithmetic."""
    power = load.accelerators * gain(load.in_flight)
    trainers = load.accelerators * load.in_flight
    kind = next(kind for kind in NODES.workers if kind.name == "trainer-spot")
    gpu = next(kind for kind in NODES.workers if kind.name == "gpu-spot")
    nodes = ceil(trainers / kind.trainers)
    puts = mean(NEW_IMAGE["puts"], KNOWN_IMAGE["puts"], load.known) * load.rate
    puts += trainers * (1 / CHECKPOINT_SECONDS + LEASE_RENEWALS)
    gets = mean(NEW_IMAGE["gets"], KNOWN_IMAGE["gets"], load.known) * load.rate
    dollars = load.accelerators * gpu.dollars_per_hour + nodes * kind.dollars_per_hour
    dollars += load.shards * NODES.head.dollars_per_hour
    calls = CALLS * mean(1, load.editing, load.known)
    return Plan(
        edits_per_second=load.rate,
        accelerators_busy=load.rate * load.mean_seconds / power,
        largest_seconds=0.8 * power / load.rate,
        trainers=trainers,
        trainer_nodes=nodes,
        trainer_memory_gib=trainers * TRAINER_GIB,
        puts_per_second=puts,
        gets_per_second=gets,
        calls_per_second=calls * load.rate,
        tasks_per_second=load.rate * (1 + load.notices / DAY * load.mean_seconds),
        board_pushes_per_shard=trainers * BOARD_PUSHES / load.shards,
        dollars_per_hour=dollars,
        dollars_per_thousand_edits=dollars / 3.6 / load.rate,
    )


def mean(new: float, known: float, share: float) -> float:
    """Of edits of new and of known images."""
    return new * (1 - share) + known * share


@dataclass(frozen=True)
class Limit:
    """Something that breaks, and how far off it is."""

    what: str
    used: float
    limit: float

    @property
    def share(self) -> float:
        return self.used / self.limit


def limits(load: Load) -> list[Limit]:
    """What breaks, the nearest first."""
    found = plan(load)
    rows = [
        Limit("accelerators", found.accelerators_busy, 1.0),
        Limit("progress boards", found.board_pushes_per_shard, ACTOR_CALLS_PER_SECOND),
        Limit("puts to one prefix of the store", found.puts_per_second, PUTS_PER_SECOND),
        Limit("gets from one prefix of the store", found.gets_per_second, GETS_PER_SECOND),
        Limit("tasks of one shard", found.tasks_per_second / load.shards, TASKS_PER_SECOND),
        Limit(
            "calls of one backbone",
            found.calls_per_second / load.accelerators,
            ACTOR_CALLS_PER_SECOND,
        ),
        Limit("waiting calls of one backbone", load.in_flight, TABLE.backbone_on_gpu.max_queue),
    ]
    return sorted(rows, key=lambda row: -row.share)


@dataclass(frozen=True)
class Simulated:
    """What a simulated shard did."""

    edits_per_second: float
    busy: float
    mean_batch: float
    mean_seconds: float
    slow_seconds: float
    """95 % of the edits were sooner."""
    lost_share: float
    """Work done twice, because a machine went after the last checkpoint."""


def simulate(load: Load, *, hours: float = 0.5, step: float = 0.5, seed: int = 0) -> Simulated:
    """One shard: edits arrive at random, share accelerators, and lose some now and then.

    Args:
        load: of the whole farm.
        hours: that are simulated, after as long a start that is not counted.
        step: seconds; what an edit's last step does not need is idle, so busy shares are a little
            too high.
        seed: of the random numbers.
    """
    random = np.random.default_rng(seed)
    machines = load.accelerators // load.shards
    rate = load.rate / load.shards
    left = np.zeros((machines, load.in_flight))  # accelerator seconds; 0 is an empty place
    began = np.zeros_like(left)
    kept = np.zeros_like(left)  # what was left at the last checkpoint
    gains = np.array([0.0, *(gain(size) for size in range(1, load.in_flight + 1))])
    queue: list[tuple[float, float]] = []
    done: list[float] = []
    busy = items = lost = worked = 0.0
    steps = int(hours * 3600 / step)
    for number in range(2 * steps):
        now, counted = number * step, number >= steps
        for _ in range(random.poisson(rate * step)):
            work = load.seconds * (load.editing if random.random() < load.known else 1.0)
            queue.append((now, work))
        free = np.argwhere(left == 0)
        load_of = (left > 0).sum(axis=1)
        order = np.argsort(load_of[free[:, 0]], kind="stable")
        for place in free[order][: len(queue)]:
            came, work = queue.pop(0)
            left[tuple(place)] = kept[tuple(place)] = work
            began[tuple(place)] = came
        running = left > 0
        sizes = running.sum(axis=1)
        pace = np.divide(gains[sizes], sizes, out=np.zeros(machines), where=sizes > 0) * step
        before = left.copy()
        left = np.where(running, np.maximum(left - pace[:, None], 0.0), 0.0)
        ended = running & (left == 0)
        if counted:
            done += list(now + step - began[ended])
            worked += float((before - left).sum())
            busy += float((sizes > 0).sum()) / machines
            items += float(sizes[sizes > 0].mean()) if (sizes > 0).any() else 0.0
        if number % max(1, round(CHECKPOINT_SECONDS / step)) == 0:
            kept = left.copy()
        gone = random.random(machines) < load.notices / DAY * step
        again = np.where(gone[:, None] & (left > 0), kept, left)
        lost += float((again - left).sum()) if counted else 0.0
        left = again
    return Simulated(
        edits_per_second=len(done) / (steps * step) * load.shards,
        busy=busy / steps,
        mean_batch=items / steps,
        mean_seconds=float(np.mean(done)) if done else 0.0,
        slow_seconds=float(np.quantile(done, 0.95)) if done else 0.0,
        lost_share=lost / worked if worked else 0.0,
    )


def text(load: Load) -> str:
    """All figures, as the runbook prints them."""
    found, shard = plan(load), simulate(load)
    title = (
        f"{load.accelerators:,} accelerators, {load.edits:,} edits a day, "
        f"{load.seconds:g} s each alone, {load.known:.0%} of known images"
    )
    lines = [
        title,
        f"edits a second                    {found.edits_per_second:10.1f}",
        f"accelerators busy                 {found.accelerators_busy:10.0%}",
        f"  a mean edit may cost at 80 %    {found.largest_seconds:10.1f} s",
        f"  it costs                        {load.mean_seconds:10.1f} s",
        f"trainers at once                  {found.trainers:10,}",
        f"  nodes of 160 trainers           {found.trainer_nodes:10,}",
        f"  memory                          {found.trainer_memory_gib:10,.0f} GiB",
        f"store: puts a second              {found.puts_per_second:10,.0f}",
        f"store: gets a second              {found.gets_per_second:10,.0f}",
        f"calls to backbones a second       {found.calls_per_second:10,.0f}",
        f"tasks a second, all shards        {found.tasks_per_second:10.1f}",
        f"pushes to each shard's board      {found.board_pushes_per_shard:10,.0f}",
        f"dollars an hour (hint)            {found.dollars_per_hour:10,.0f}",
        f"dollars a thousand edits (hint)   {found.dollars_per_thousand_edits:10.2f}",
        "",
        "what breaks first                      used / limit",
        *(f"{row.what:<34} {row.share:10.1%}" for row in limits(load)),
        "",
        f"one of {load.shards} shards, simulated for half an hour",
        f"edits a second, all shards        {shard.edits_per_second:10.1f}",
        f"accelerators with work            {shard.busy:10.0%}",
        f"mean batch of these               {shard.mean_batch:10.1f}",
        f"mean edit                         {shard.mean_seconds:10.1f} s",
        f"95 % of edits within              {shard.slow_seconds:10.1f} s",
        f"work lost with spot machines      {shard.lost_share:10.3%}",
    ]
    return "\n".join(lines)


def main(
    accelerators: Annotated[int, typer.Option(min=1)] = Load.accelerators,
    edits: Annotated[int, typer.Option(min=1, help="A day.")] = Load.edits,
    seconds: Annotated[float, typer.Option(help="Of an accelerator, for one edit.")] = Load.seconds,
    known: Annotated[float, typer.Option(help="Share of edits of known images.")] = Load.known,
    shards: Annotated[int, typer.Option(min=1, help="Clusters.")] = Load.shards,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write figures here.")] = None,
) -> None:
    """Print the plan, and what a simulated shard did."""
    load = Load(accelerators, edits, seconds, known, shards=shards)
    print(text(load))
    if json_file is not None:
        figures = {"load": asdict(load), "plan": asdict(plan(load))}
        figures |= {"simulated": asdict(simulate(load))}
        json_file.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    typer.run(main)
