"""Jobs: manifests, what their stores refuse, tenants' limits, restarts."""

import asyncio
import gc
import json
import time

import pytest

from farm.errors import StoreError
from farm.storage.layout import online_key
from farm.storage.store import Entry, UnusableStoreError
from serve.gate import Gate
from serve.intake import CheckedEdit
from serve.job_runner import JobRunner
from serve.limits import RequestLimits, TenantLimits
from serve.records import JobRecord, line_id, new_id
from tests.serve.conftest import (
    PICTURE,
    QUICK,
    WORDS,
    Stuck,
    opened,
    picture,
    store_of,
    until,
)

pytestmark = pytest.mark.usefixtures("impatient")


async def finished(farm, name):
    """A job at its end."""

    async def look():
        job = (await farm.client.get(f"/v1/jobs/{name}")).json()
        return job if job["state"] != "running" else None

    return await until(look)


async def test_a_manifest_becomes_edits_and_its_broken_lines_are_told(settings, host, tmp_path):
    folder = tmp_path / "photos" / "set"
    folder.mkdir(parents=True)
    (folder / "ball.png").write_bytes(PICTURE)
    line = {**WORDS, "image": "ball.png", "parameters": QUICK}
    lines = [
        json.dumps(line),
        json.dumps({**line, "seed": 1, "image": "photos://set/ball.png"}),
        "",
        json.dumps({**line, "target_word": "cat"}),
        "not json",
        json.dumps({**line, "image": "../../secret.png"}),
    ]
    (folder / "edits.jsonl").write_text("\n".join(lines))
    settings = settings.model_copy(update={"image_stores": {"photos": str(tmp_path / "photos")}})
    async with opened(settings, host) as farm:
        body = {"manifest": "photos://set/edits.jsonl", "max_in_flight": 2}
        response = await farm.client.post("/v1/jobs", json=body)
        assert response.status_code == 202, response.text
        name = response.json()["id"]
        job = await finished(farm, name)
        assert job["state"] == "done"
        assert job["counts"] == {"done": 2, "refused": 3}
        assert set(job["refusals"]) == {"4", "5", "6"}
        assert job["lines"] == 5
        edits = (await farm.client.get("/v1/edits", params={"job": name})).json()["data"]
        assert {edit["priority"] for edit in edits} == {"batch"}
        assert len(edits) == 2
        assert [j["id"] for j in (await farm.client.get("/v1/jobs")).json()["data"]] == [name]


class Refusing:
    """A store whose one object fails to be read, each time or so many times."""

    def __init__(self, store, key, error, times=None):
        self._store, self._key, self._error, self._times = store, key, error, times
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def get(self, key):
        if key == self._key:
            self.asked += 1
            if self._times is None or self.asked <= self._times:
                raise self._error
        return self._store.get(key)


def job_of_lines(folder, pictures):
    """A manifest with a line for each picture, each picture another."""
    folder.mkdir()
    lines = []
    for seed, name in enumerate(pictures):
        (folder / name).write_bytes(picture(seed))
        lines.append(json.dumps({**WORDS, "image": name, "parameters": QUICK, "seed": seed}))
    (folder / "edits.jsonl").write_text("\n".join(lines))
    return {"manifest": "photos://edits.jsonl", "max_in_flight": 2}


@pytest.fixture
def photos(settings, tmp_path):
    """Settings with a store of pictures."""
    return settings.model_copy(update={"image_stores": {"photos": str(tmp_path / "photos")}})


@pytest.fixture
def hurried_jobs(monkeypatch):
    monkeypatch.setattr("serve.job_runner._PICTURE_PAUSES", (0.01, 0.02))
    monkeypatch.setattr("serve.job_runner._RETRY_SECONDS", 0.05)


@pytest.mark.parametrize(
    ("error", "times", "asked", "counts"),
    [
        (UnusableStoreError("AccessDenied at s3://secret/"), None, 2, {"done": 2, "refused": 1}),
        (UnusableStoreError("ExpiredToken at s3://secret/"), 1, 2, {"done": 3}),
        (StoreError("InvalidObjectState at s3://secret/"), None, 3, {"done": 2, "refused": 1}),
        (StoreError("SlowDown"), 2, 3, {"done": 3}),
    ],
)
async def test_a_picture_that_its_store_refuses_refuses_its_line_alone(
    photos, host, tmp_path, hurried_jobs, error, times, asked, counts
):
    body = job_of_lines(tmp_path / "photos", ["a.png", "b.png", "c.png"])
    async with opened(photos, host) as farm:
        stores = farm.dispatcher._intake._image_stores
        store = stores["photos"] = Refusing(stores["photos"], "a.png", error, times)
        name = (await farm.client.post("/v1/jobs", json=body)).json()["id"]
        job = await finished(farm, name)
    assert (job["state"], job["counts"], store.asked) == ("done", counts, asked)
    assert set(job["refusals"]) == ({"1"} if "refused" in counts else set())
    assert "secret" not in json.dumps(job)


async def test_an_outage_of_the_records_too_refuses_no_line(
    photos, host, tmp_path, hurried_jobs, monkeypatch
):
    body = job_of_lines(tmp_path / "photos", ["a.png"])
    is_over, seen = JobRunner._is_over, 0
    async with opened(photos, host) as farm:
        stores = farm.dispatcher._intake._image_stores
        store = stores["photos"] = Refusing(stores["photos"], "a.png", StoreError("down"), 5)

        async def down(self, job):
            nonlocal seen
            if seen < store.asked <= 5:  # once after each time that the picture was not there
                seen = store.asked
                raise StoreError("down too")
            return await is_over(self, job)

        monkeypatch.setattr(JobRunner, "_is_over", down)
        name = (await farm.client.post("/v1/jobs", json=body)).json()["id"]
        job = await finished(farm, name)
    assert (job["counts"], store.asked) == ({"done": 1}, 6)  # more than one round has tries


async def test_a_damaged_record_is_the_outcome_of_its_line_alone(photos, host, tmp_path):
    body = job_of_lines(tmp_path / "photos", ["a.png", "b.png"])
    async with opened(photos, host) as farm:
        ledger = farm.services.ledger
        job = JobRecord(id=new_id("j"), tenant="default", created=1.7e9, **body)
        ledger.store.put(online_key("default", "records", line_id(job, 1)), b"damaged")
        ledger.open_job(job)
        await farm.dispatcher.open_job("default", job.id)
        ended = await finished(farm, job.id)
    assert ended["counts"] == {"done": 1, "refused": 1}
    assert "damaged" in ended["refusals"]["1"]


async def test_a_job_goes_on_after_a_restart_and_runs_no_line_twice(settings, host, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "ball.png").write_bytes(PICTURE)
    line = {**WORDS, "image": "ball.png", "parameters": QUICK}
    lines = [json.dumps({**line, "seed": seed}) for seed in range(5)]
    (tmp_path / "photos" / "edits.jsonl").write_text("\n".join(lines))
    settings = settings.model_copy(update={"image_stores": {"photos": str(tmp_path / "photos")}})
    body = {"manifest": "photos://edits.jsonl", "max_in_flight": 2}
    async with opened(settings, host, farm=Stuck(host, store_of(settings))) as farm:
        name = (await farm.client.post("/v1/jobs", json=body)).json()["id"]
        await until(lambda: list(farm.services.ledger.ids("default")))
    async with opened(settings, host) as farm:
        job = await finished(farm, name)
        assert job["counts"] == {"done": 5}
        assert len((await farm.client.get("/v1/edits")).json()["data"]) == 5


async def test_a_cancelled_job_stops_its_edits_and_starts_no_more(settings, host, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "ball.png").write_bytes(PICTURE)
    line = {**WORDS, "image": "ball.png", "parameters": {"num_steps": 50, "inner_steps": 400}}
    lines = [json.dumps({**line, "seed": seed}) for seed in range(50)]
    (tmp_path / "photos" / "edits.jsonl").write_text("\n".join(lines))
    settings = settings.model_copy(update={"image_stores": {"photos": str(tmp_path / "photos")}})
    async with opened(settings, host) as farm:
        body = {"manifest": "photos://edits.jsonl", "max_in_flight": 2}
        name = (await farm.client.post("/v1/jobs", json=body)).json()["id"]
        records = farm.services.ledger.records
        await until(lambda: any(record.state == "running" for record in records("default")))
        cancelled = (await farm.client.post(f"/v1/jobs/{name}/cancel")).json()
        assert cancelled["state"] == "cancelled"
        await until(lambda: not list(farm.services.ledger.pending()))
        states = {edit["state"] for edit in (await farm.client.get("/v1/edits")).json()["data"]}
        assert states == {"cancelled"}
        await until(lambda: not farm.dispatcher._jobs._tasks)
        assert (await farm.client.get(f"/v1/jobs/{name}")).json()["lines"] is None, "not all read"


@pytest.fixture
def limits(monkeypatch):
    """Every tenant's, as a dictionary that a test may change: none at first."""
    found = {"edits_per_minute": None, "max_queued": None, "max_jobs": None}
    monkeypatch.setattr(Gate, "limits_of", lambda *_: TenantLimits(**found))
    return found


async def test_lines_wait_for_the_place_that_their_tenant_has(
    photos, host, tmp_path, monkeypatch, limits
):
    monkeypatch.setattr("serve.job_runner._LONGEST_WAIT", 0.02)
    limits["max_queued"] = 1
    body = job_of_lines(tmp_path / "photos", [f"{seed}.png" for seed in range(4)])
    most = 0
    async with opened(photos, host) as farm:
        name = (await farm.client.post("/v1/jobs", json=body)).json()["id"]
        while (job := (await farm.client.get(f"/v1/jobs/{name}")).json())["state"] == "running":
            snapshot = await farm.dispatcher.snapshot()
            most = max(most, snapshot.queued + len(snapshot.running))
            await asyncio.sleep(0.005)
    assert job["counts"] == {"done": 4}
    assert most == 1


async def test_a_job_says_which_limit_it_waits_for_and_goes_on_when_there_is_room(
    photos, host, tmp_path, monkeypatch, limits
):
    monkeypatch.setattr("serve.job_runner._LONGEST_WAIT", 0.02)
    monkeypatch.setattr("serve.job_runner._NOTE_SECONDS", 0.02)
    body = job_of_lines(tmp_path / "photos", ["a.png", "b.png", "c.png"])
    size = len((tmp_path / "photos" / "a.png").read_bytes())
    async with opened(photos, host) as farm:
        kept = (await farm.done())["id"]
        ledger = farm.services.ledger
        used = ledger.read("default", kept).stored_bytes
        limits["max_stored_bytes"] = used + size // 2
        name = (await farm.client.post("/v1/jobs", json={**body, "max_in_flight": 1})).json()["id"]

        async def look():
            job = (await farm.client.get(f"/v1/jobs/{name}")).json()
            return job if job["waits_for"] else None

        job = await until(look)
        assert "of storage" in job["waits_for"]
        assert (job["state"], job["counts"]) == ("running", {"done": 1})
        refused = await farm.client.post("/v1/jobs", json=body)
        assert (refused.status_code, refused.json()["code"]) == (429, "storage_full")
        limits["max_stored_bytes"] = 10**8  # as when the tenant deletes some
        job = await finished(farm, name)
    assert (job["counts"], job["waits_for"]) == ({"done": 3}, None)


async def test_a_job_that_waits_for_room_can_be_cancelled(
    photos, host, tmp_path, monkeypatch, limits
):
    monkeypatch.setattr("serve.job_runner._LONGEST_WAIT", 0.02)
    monkeypatch.setattr("serve.job_runner._NOTE_SECONDS", 0.02)
    body = job_of_lines(tmp_path / "photos", ["a.png", "b.png", "c.png"])
    async with opened(photos, host, farm=Stuck(host, store_of(photos))) as farm:
        limits["max_queued"] = 1
        assert (await farm.submit()).status_code == 202
        name = (await farm.client.post("/v1/jobs", json=body)).json()["id"]

        async def waits():
            return (await farm.client.get(f"/v1/jobs/{name}")).json()["waits_for"]

        assert "not finished" in await until(waits)
        await farm.client.post(f"/v1/jobs/{name}/cancel")
        await until(lambda: not farm.dispatcher._jobs._tasks)
        job = (await farm.client.get(f"/v1/jobs/{name}")).json()
        assert (job["state"], job["waits_for"]) == ("cancelled", None)
        assert len(list(farm.services.ledger.ids("default"))) == 1


async def test_bytes_of_lines_are_counted_once_over_a_restart(photos, host, tmp_path, limits):
    limits["max_stored_bytes"] = 10**8
    body = job_of_lines(tmp_path / "photos", ["a.png", "b.png", "c.png"])
    async with opened(photos, host, farm=Stuck(host, store_of(photos))) as farm:
        await farm.client.post("/v1/jobs", json=body)
        await until(lambda: len(list(farm.services.ledger.ids("default"))) == 2)
    async with opened(photos, host) as farm:
        await farm.submit(seed=9)  # somebody asks, so what lies there is counted
        records = farm.services.ledger.records
        await until(lambda: [r.state for r in records("default")] == ["done"] * 4)
        await until(lambda: not list(farm.services.ledger.pending()))
        stored = sum(record.stored_bytes for record in records("default"))
        assert farm.dispatcher._admission._accounts["default"].stored == stored


async def test_jobs_that_are_open_at_once_are_bounded(photos, host, tmp_path, limits):
    limits["max_jobs"] = 1
    body = job_of_lines(tmp_path / "photos", ["a.png"])
    async with opened(photos, host, farm=Stuck(host, store_of(photos))) as farm:
        first = await farm.client.post("/v1/jobs", json=body)
        refused = await farm.client.post("/v1/jobs", json=body)
        assert (first.status_code, refused.status_code) == (202, 429)
        assert refused.json()["code"] == "too_many_jobs"
        assert refused.headers["retry-after"] == "60"
        await farm.client.post(f"/v1/jobs/{first.json()['id']}/cancel")


async def test_opening_a_job_counts_as_one_edit_of_the_rate(photos, host, tmp_path, limits):
    limits["edits_per_minute"] = 1
    body = job_of_lines(tmp_path / "photos", [])
    async with opened(photos, host) as farm:
        codes = [(await farm.client.post("/v1/jobs", json=body)).status_code for _ in range(2)]
    assert codes == [202, 429]


async def test_what_is_too_large_is_refused_before_it_is_read(photos, host, tmp_path, monkeypatch):
    small = RequestLimits(max_manifest_bytes=800, max_json_bytes=300, max_image_bytes=10_000)
    photos = photos.model_copy(update={"limits": small})
    body = job_of_lines(tmp_path / "photos", ["a.png", "b.png"])
    manifest = tmp_path / "photos" / "edits.jsonl"
    (tmp_path / "photos" / "b.png").write_bytes(bytes(10_001))
    lines = manifest.read_text()
    manifest.write_text(f"{lines}\n{json.dumps({'source_prompt': 'x' * 300})}")
    read = []
    async with opened(photos, host) as farm:
        store = type(farm.dispatcher._intake._image_stores["photos"])
        get = store.get
        monkeypatch.setattr(store, "get", lambda self, key: read.append(key) or get(self, key))
        job = await finished(farm, (await farm.client.post("/v1/jobs", json=body)).json()["id"])
        assert job["counts"] == {"done": 1, "refused": 2}
        assert "10,001 bytes, and 10,000 is the most" in job["refusals"]["2"]
        assert "300 is the most" in job["refusals"]["3"]
        assert "b.png" not in read
        manifest.write_text(lines + "\n" * 800)
        refused = await farm.client.post("/v1/jobs", json=body)
        assert refused.status_code == 422
        assert "800 is the most" in refused.json()["detail"]


async def test_a_manifest_that_its_store_refuses_later_fails_its_job(
    photos, host, tmp_path, hurried_jobs
):
    body = job_of_lines(tmp_path / "photos", ["a.png"])
    error = UnusableStoreError("AccessDenied at s3://secret/")
    async with opened(photos, host) as farm:
        job = JobRecord(id=new_id("j"), tenant="default", created=1.7e9, **body)
        stores = farm.dispatcher._intake._image_stores
        store = stores["photos"] = Refusing(stores["photos"], "edits.jsonl", error)
        farm.services.ledger.open_job(job)
        await farm.dispatcher.open_job("default", job.id)
        ended = await finished(farm, job.id)
    assert (ended["state"], store.asked) == ("failed", 2)
    assert "the right to read" in ended["error"]["detail"]
    assert "secret" not in json.dumps(ended)


async def test_uploads_older_than_a_day_are_swept(settings, host, monkeypatch):
    store = store_of(settings)
    kept, old = (online_key("default", "uploads", name) for name in ("kept", "old"))
    entries = type(store).entries

    def aged(self, prefix, **options):
        for entry in entries(self, prefix, **options):
            days = 2 if entry.key == old else 0.5
            yield Entry(entry.key, entry.size, time.time() - days * 86_400)

    monkeypatch.setattr(type(store), "entries", aged)
    for key in (kept, old):
        store.put(key, PICTURE)
    async with opened(settings, host):
        await until(lambda: not store.exists(old))
    assert store.exists(kept)


async def test_jobs_that_are_opened_at_the_same_time_are_bounded(photos, host, tmp_path, limits):
    limits["max_jobs"] = 2
    body = job_of_lines(tmp_path / "photos", ["a.png"])
    async with opened(photos, host, farm=Stuck(host, store_of(photos))) as farm:
        asked = (farm.client.post("/v1/jobs", json=body) for _ in range(12))
        codes = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert sorted(codes) == [202] * 2 + [429] * 10


async def test_a_job_that_cannot_be_opened_gives_its_place_back(photos, host, tmp_path, limits):
    limits["max_jobs"] = 1
    body = job_of_lines(tmp_path / "photos", ["a.png"])
    async with opened(photos, host) as farm:
        wrong = {**body, "manifest": "photos://none.jsonl"}
        codes = [
            (await farm.client.post("/v1/jobs", json=one)).status_code for one in (wrong, body)
        ]
    assert codes == [422, 202]


async def test_lines_that_wait_hold_no_pictures(photos, host, tmp_path, limits):
    limits["max_queued"] = 1
    body = job_of_lines(tmp_path / "photos", [f"{n}.png" for n in range(6)])
    async with opened(photos, host, farm=Stuck(host, store_of(photos))) as farm:
        assert (await farm.submit()).status_code == 202
        await farm.client.post("/v1/jobs", json={**body, "max_in_flight": 6})
        runner = farm.dispatcher._jobs
        await until(
            lambda: any(t.waits_for and len(t.running) == 6 for t in runner._tallies.values())
        )
        await asyncio.sleep(0.1)
        gc.collect()
        held = [found for found in gc.get_objects() if type(found) is CheckedEdit]
        assert held == []


async def test_a_cancelled_job_of_many_waiting_lines_ends_soon(photos, host, tmp_path, limits):
    limits["max_queued"] = 1
    body = job_of_lines(tmp_path / "photos", [f"{n}.png" for n in range(6)])
    async with opened(photos, host, farm=Stuck(host, store_of(photos))) as farm:
        assert (await farm.submit()).status_code == 202
        job = {**body, "max_in_flight": 6}
        name = (await farm.client.post("/v1/jobs", json=job)).json()["id"]
        tallies = farm.dispatcher._jobs._tallies
        await until(lambda: any(len(tally.running) == 6 for tally in tallies.values()))
        await farm.client.post(f"/v1/jobs/{name}/cancel")
        async with asyncio.timeout(12):  # one line's wait of five seconds, not six lines'
            await until(lambda: not farm.dispatcher._jobs._tasks)
