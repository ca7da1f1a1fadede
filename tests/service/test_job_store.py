"""The contract of a store of jobs, kept by both: in memory, and in a real Redis."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from service.breaker import Breaker
from service.errors import Busy, IdempotencyMismatch, JobsUnavailable, StorageFull
from service.job import Draft, Event, Job, new_id
from service.job_limits import JobLimits
from service.job_store import JobStore
from service.memory_jobs import MemoryJobs
from service.redis_jobs import RedisJobs
from tests.service.conftest import RedisServer, required
from tests.service.wire import until

LONG = JobLimits(lease_s=600)
Make = Callable[..., JobStore]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(required("redis-server"), tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes empty stores."""
    made: list[JobStore] = []

    def make_one(limits: JobLimits = LONG) -> JobStore:
        if request.param == "memory":
            store: JobStore = MemoryJobs(limits)
        else:
            server = request.getfixturevalue("server")
            emptied(server)
            store = RedisJobs(server.url, 30.0, Breaker(5, 5), limits)
        made.append(store)
        return store

    yield make_one
    for store in made:
        store.close()


def emptied(server: RedisServer) -> None:
    with Redis.from_url(server.url) as client:
        client.flushall()


def draft(**fields: object) -> Draft:
    plain = Draft(new_id(), None, {"prompts": ["dog"]}, 100, "digest")
    return replace(plain, **fields)  # type: ignore[arg-type]


def submitted(store: JobStore, **fields: object) -> str:
    return store.submit(draft(**fields)).job.id


def got(store: JobStore, job_id: str) -> Job:
    job = store.get(job_id)
    assert job is not None
    return job


def names(store: JobStore, job_id: str, after: int = 0) -> list[str]:
    events = store.events(job_id, after)
    assert events is not None
    return [event.name for event in events]


def test_a_job_from_its_beginning_to_its_end(make: Make) -> None:
    store = make()
    asked = {"prompts": ["dög", "rain"], "zip": False}
    submission = store.submit(draft(owner="me", ask=asked, traceparent="00-1"))
    job_id = submission.job.id
    assert submission.created
    assert (submission.job.status, submission.job.queue_position, submission.job.owner) == ("queued", 0, "me")
    claim = store.claim("w")
    assert claim is not None
    assert (claim.id, claim.attempt, claim.ask, claim.traceparent) == (job_id, 1, asked, "00-1")
    assert store.claim("w") is None
    assert store.report([(claim, 0.5)]) == [True]
    running = got(store, job_id)
    assert (running.status, running.progress, running.queue_position) == ("running", 0.5, None)
    assert running.started_s is not None and running.started_s >= running.created_s
    assert store.succeed(claim, {"file": "x", "stems": [1, 2.5, None]}, 40)
    done = got(store, job_id)
    assert (done.status, done.progress, done.result) == ("succeeded", 1, {"file": "x", "stems": [1, 2.5, None]})
    assert done.finished_s is not None and done.expires_s is not None
    assert done.expires_s - done.finished_s == pytest.approx(3_600, abs=0.01)
    assert names(store, job_id) == ["queued", "started", "progress", "completed"]
    assert store.counts().n_bytes == 40


def test_first_come_first_served_and_the_place_in_the_queue_only_falls(make: Make) -> None:
    store = make()
    ids = [submitted(store) for _ in range(5)]
    assert [got(store, job_id).queue_position for job_id in ids] == [0, 1, 2, 3, 4]
    places = {job_id: [got(store, job_id).queue_position] for job_id in ids}
    claims = []
    for step in ("claim", "claim", "release", "claim", "succeed", "claim", "succeed"):
        if step == "claim":
            claim = store.claim("w")
            assert claim is not None
            claims.append(claim)
        elif step == "release":
            assert store.release(claims.pop())
        else:
            assert store.succeed(claims.pop(0), {}, 0)
        for job_id in ids:
            place = got(store, job_id).queue_position
            if place is not None:
                assert place <= min(p for p in places[job_id] if p is not None)
                places[job_id].append(place)
    assert [got(store, job_id).status for job_id in ids] == ["succeeded", "succeeded", "running", "queued", "queued"]


def test_progress_never_goes_back_and_small_steps_make_no_event(make: Make) -> None:
    store = make()
    job_id = submitted(store)
    claim = store.claim("w")
    assert claim is not None
    for done in (0.001, 0.3, 0.305, 0.2, 1.0):
        store.report([(claim, done)])
    assert store.release(claim)
    again = store.claim("w")
    assert again is not None and again.attempt == 2
    store.report([(again, 0.1)])
    assert got(store, job_id).progress == 1
    assert names(store, job_id) == ["queued", "started", "progress", "progress", "queued", "started"]
    events = store.events(job_id, 0)
    assert events is not None
    assert [event.progress for event in events] == [0, 0, 0.3, 1, 1, 1]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0, 1), max_size=12), st.integers(-3, 20))
def test_events_replay_exactly(make: Make, done: list[float], after: int) -> None:
    store = make()
    job_id = submitted(store)
    claim = store.claim("w")
    assert claim is not None
    seen: list[Event] = []
    for share in done:
        store.report([(claim, share)])
        news = store.events(job_id, len(seen))
        assert news is not None
        seen += news
    store.succeed(claim, {}, 0)
    seen += store.events(job_id, len(seen)) or []
    assert [event.number for event in seen] == list(range(1, len(seen) + 1))
    assert store.events(job_id, after) == seen[max(after, 0) :]
    assert [event.progress for event in seen] == sorted(event.progress for event in seen)


def test_a_lapsed_lease_gives_the_job_to_another_and_the_first_ends_nothing(make: Make) -> None:
    store = make(JobLimits(lease_s=0.05))
    first_id, second_id = submitted(store), submitted(store)
    slow = store.claim("slow")
    assert slow is not None and slow.id == first_id
    found = []
    until(lambda: (claim := store.claim("next")) and found.append(claim) is None and claim.id == first_id)
    claim = found[-1]
    assert claim.attempt > slow.attempt
    assert not store.succeed(slow, {"file": "of the slow one"}, 1)
    assert not store.fail(slow, {})
    assert not store.release(slow)
    assert store.report([(slow, 0.9)]) == [False]
    assert got(store, first_id).progress == 0
    assert store.succeed(claim, {"file": "of the other"}, 1)
    assert store.succeed(claim, {"file": "again, since the answer was lost"}, 1)
    assert not store.fail(claim, {})
    assert got(store, first_id).result == {"file": "of the other"}
    assert got(store, second_id).status in ("queued", "running")
    assert names(store, first_id)[:3] == ["queued", "started", "queued"]
    assert names(store, first_id).count("completed") == 1


def test_a_lease_that_is_renewed_does_not_lapse(make: Make) -> None:
    store = make(JobLimits(lease_s=1.0))
    submitted(store)
    claim = store.claim("w")
    assert claim is not None
    stop = threading.Event()
    for _ in range(30):
        assert store.report([(claim, 0)]) == [True]
        assert store.claim("other") is None
        stop.wait(0.05)


def test_a_job_that_takes_its_workers_with_it_fails_in_the_end(make: Make) -> None:
    store = make(JobLimits(lease_s=0.01, max_losses=3))
    job_id = submitted(store)
    attempts = []

    def take() -> bool:
        if (claim := store.claim("w")) is not None:
            attempts.append(claim.attempt)
        return got(store, job_id).status == "failed"

    until(take)
    assert attempts == [1, 2, 3]
    problem = got(store, job_id).problem
    assert problem is not None and problem["kind"] == "job-lost"
    assert store.counts().n_bytes == 0


def test_cancel_what_waits_runs_or_has_ended(make: Make) -> None:
    store = make()
    waiting, running, done = submitted(store), submitted(store), submitted(store)
    assert [claim.id for claim in (store.claim("w"),) if claim] == [waiting]
    assert store.cancel(waiting) is not None
    claim = store.claim("w")
    assert claim is not None and claim.id == running
    assert got(store, done).queue_position == 1
    before = store.cancel(running)
    assert before is not None and before.status == "running"
    assert store.report([(claim, 0.5)]) == [False]
    assert not store.succeed(claim, {}, 5)
    last = store.claim("w")
    assert last is not None and store.succeed(last, {"file": "x"}, 7)
    assert store.counts().n_bytes == 7
    assert store.cancel(done) is not None
    assert [got(store, job_id).status for job_id in (waiting, running, done)] == ["canceled", "canceled", "expired"]
    assert got(store, done).result is None
    assert names(store, running)[-1] == "canceled"
    assert store.cancel(running) is not None
    assert names(store, running).count("canceled") == 1
    assert store.cancel(new_id()) is None
    assert (store.counts().queued, store.counts().running, store.counts().n_bytes) == (0, 0, 0)
    assert store.claim("w") is None


def test_results_expire_then_the_job_is_forgotten(make: Make) -> None:
    store = make(JobLimits(keep_s=0.3, remember_s=0.3))
    job_id = submitted(store, key="k")
    claim = store.claim("w")
    assert claim is not None and store.succeed(claim, {"file": "x"}, 7)
    assert store.with_files([job_id, new_id()]) == {job_id}
    until(lambda: got(store, job_id).status == "expired")
    assert got(store, job_id).result is None
    assert store.with_files([job_id]) == set()
    assert store.expire() == [job_id]
    assert store.counts().n_bytes == 0
    assert store.expire() == []
    until(lambda: store.get(job_id) is None)
    assert store.events(job_id, 0) is None
    assert store.cancel(job_id) is None
    assert store.submit(draft(key="k")).created


def test_what_failed_keeps_its_reason_and_no_files(make: Make) -> None:
    store = make()
    job_id = submitted(store)
    claim = store.claim("w")
    problem = {"kind": "corrupt-audio", "status": 415, "limit": ["WAV"]}
    assert claim is not None and store.fail(claim, problem)
    assert (got(store, job_id).status, got(store, job_id).problem) == ("failed", problem)
    assert store.counts().n_bytes == 0
    assert store.with_files([job_id]) == set()
    assert names(store, job_id)[-1] == "failed"


def test_bounds(make: Make) -> None:
    store = make(JobLimits(max_waiting=2, max_bytes=250))
    submitted(store, key="k")
    submitted(store)
    with pytest.raises(Busy) as refusal:
        submitted(store)
    assert refusal.value.limit == 2
    assert not store.submit(draft(key="k")).created  # which is no new one
    assert store.claim("w")
    with pytest.raises(StorageFull) as full:
        submitted(store)
    assert full.value.limit == 250
    submitted(store, n_bytes=50)


def test_the_same_key_is_the_same_job(make: Make) -> None:
    store = make()
    job_id = submitted(store, key="k")
    again = store.submit(draft(key="k"))
    assert (again.job.id, again.created) == (job_id, False)
    with pytest.raises(IdempotencyMismatch):
        store.submit(draft(key="k", digest="another"))
    assert store.submit(draft(key="another")).created
    claim = store.claim("w")
    assert claim is not None and store.succeed(claim, {"file": "x"}, 1)
    assert store.submit(draft(key="k")).job.status == "succeeded"
    assert store.counts().queued == 1


def test_many_at_once_with_one_key_are_one_job_and_no_job_is_claimed_twice(make: Make) -> None:
    store = make()
    with ThreadPoolExecutor(16) as threads:
        ids = set(threads.map(lambda _: submitted(store, key="k"), range(32)))
        assert len(ids) == 1
        ids |= set(threads.map(lambda _: submitted(store), range(40)))
        claims = [claim for claim in threads.map(lambda n: store.claim(f"w{n}"), range(80)) if claim]
        assert Counter(claim.id for claim in claims) == Counter(ids)
        assert len(claims) == 41
        assert all(threads.map(lambda claim: store.succeed(claim, {}, 0), claims * 2))
    assert all(names(store, job_id) == ["queued", "started", "completed"] for job_id in ids)


def test_a_full_redis_forgets_embeddings_and_keeps_jobs(server: RedisServer) -> None:
    emptied(server)
    store = RedisJobs(server.url, 30.0, Breaker(5, 5), LONG)
    ids = [submitted(store) for _ in range(20)]
    with Redis.from_url(server.url) as client:
        try:
            client.config_set("maxmemory-policy", "volatile-lru")
            client.config_set("maxmemory", client.info("memory")["used_memory"] + 2**20)
            for number in range(400):
                client.set(f"embedding:{number}", bytes(10_000), ex=600)
            assert client.info("stats")["evicted_keys"] > 0
            assert [got(store, job_id).status for job_id in ids] == ["queued"] * 20
            client.config_set("maxmemory", 1)
            with pytest.raises(JobsUnavailable):
                submitted(store)
            assert got(store, ids[0]).status == "queued"
        finally:
            client.config_set("maxmemory", 0)
    assert store.claim("w") is not None
    store.close()


def test_replicas_share_what_is_in_redis(server: RedisServer) -> None:
    emptied(server)
    one, other = (RedisJobs(server.url, 30.0, Breaker(5, 5), LONG) for _ in range(2))
    job_id = submitted(one)
    claim = other.claim("other")
    assert claim is not None and claim.id == job_id
    assert one.cancel(job_id) is not None
    assert other.report([(claim, 0.5)]) == [False]
    assert one.shared and other.shared and not MemoryJobs(LONG).shared
    one.close()
    other.close()
