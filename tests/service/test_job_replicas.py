"""Jobs of several replicas, in real processes on a real Redis: what one cannot end another does."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.reliability.job_takeover import PATIENCE_S, Replicas, look, replicas, submit, take_over
from tests.service.fake_server import FakeServer, fake_server
from tests.service.job_calls import SOUND, events, windows
from tests.service.sounds import encode, noise
from tests.service.wire import until


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Replicas]:
    with replicas(tmp_path) as group:
        yield group


def status(replica: FakeServer, path: str) -> int:
    return httpx.get(f"{replica.url}{path}", timeout=PATIENCE_S).status_code


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_jobs_of_a_replica_that_is_lost_are_finished_once_elsewhere(tmp_path: Path, how: signal.Signals) -> None:
    result = take_over(tmp_path, 4, 1.0, how)
    assert (result.n_succeeded, result.n_equal, result.n_taken_over) == (4, 4, 4)
    assert (result.n_ended_twice, result.n_files_too_many) == (0, 0)
    assert result.exit_codes == [-signal.SIGKILL if how == signal.SIGKILL else 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_kill_9_of_a_replica_with_20_jobs(tmp_path: Path, how: signal.Signals) -> None:
    result = take_over(tmp_path, 20, 1.0, how)
    assert (result.n_succeeded, result.n_equal, result.n_taken_over) == (20, 20, 20)
    assert (result.n_ended_twice, result.n_files_too_many) == (0, 0)


def test_a_cancelled_job_stops_on_the_replica_that_does_it(group: Replicas) -> None:
    worker = group.start(delay_s=0.1)
    front = group.start(delay_s=0.0, job_workers=0)
    path = submit(front, windows(500))
    until(lambda: look(front, path)["progress"] > 0)
    assert httpx.delete(f"{front.url}{path}", timeout=PATIENCE_S).status_code == 204
    until(lambda: not any(worker.folder.iterdir()))
    assert look(worker, path)["status"] == "canceled"
    assert list(group.spool.iterdir()) == []
    told = events(httpx.get(f"{worker.url}{path}/events", timeout=PATIENCE_S).text)
    assert [name for _, name, _ in told][-1] == "canceled"
    assert httpx.get(f"{front.url}/v1/info", timeout=PATIENCE_S).json()["jobs"] == "shared"


def test_sigterm_gives_the_job_back_and_the_next_start_takes_it(group: Replicas) -> None:
    first = group.start(delay_s=0.3)
    other = group.start(delay_s=0.0, job_workers=0)
    path = submit(first, windows(60))
    until(lambda: look(other, path)["progress"] > 0)
    before = look(other, path)["progress"]
    assert first.end() == 0
    job = look(other, path)
    assert (job["status"], job["queue_position"]) == ("queued", 0)
    assert job["progress"] >= before
    assert list(first.folder.iterdir()) == []
    again = group.start(delay_s=0.0)
    until(lambda: look(again, path)["status"] == "succeeded")


def test_a_job_that_kills_its_replicas_is_not_tried_for_ever(group: Replicas) -> None:
    front = group.start(delay_s=0.0, job_workers=0)
    path = submit(front, windows(60))
    for _ in range(3):
        victim = group.start(delay_s=1.0)
        until(lambda: look(front, path)["status"] == "running")
        victim.signal(signal.SIGKILL)
        victim.process.wait()
        time.sleep(2.2)  # its lease
    sink = group.start(delay_s=0.0)
    until(lambda: look(front, path)["status"] == "failed")
    assert look(sink, path)["error"]["type"] == "/problems/job-lost"


def test_the_store_dies_hangs_and_comes_back_empty_while_jobs_run(group: Replicas) -> None:
    replica = group.start(delay_s=0.2, job_lease_s=600, redis_timeout_s=0.05, redis_failures=2, redis_pause_s=0.5)
    running = submit(replica, windows(60))
    until(lambda: look(replica, running)["progress"] > 0)
    group.redis.signal(signal.SIGSTOP)
    for path in ("/v1/jobs/" + "0" * 32, running, f"{running}/result"):
        began_s = time.monotonic()
        answer = httpx.get(f"{replica.url}{path}", timeout=PATIENCE_S)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert answer.json()["type"] == "/problems/jobs-unavailable"
        assert time.monotonic() - began_s < 10  # a client with its own defaults would wait for a minute
    refused = httpx.post(f"{replica.url}/v1/jobs", files={"audio": SOUND}, data={"prompt": "dog"}, timeout=PATIENCE_S)
    assert refused.status_code == 503
    waited_for = httpx.post(
        f"{replica.url}/separate", files={"audio": SOUND}, data={"prompt": "dog"}, timeout=PATIENCE_S
    )
    assert waited_for.status_code == 200
    assert httpx.get(f"{replica.url}/readyz", timeout=PATIENCE_S).status_code == 200
    group.redis.signal(signal.SIGCONT)
    until(lambda: status(replica, running) == 200)
    until(lambda: look(replica, running)["status"] == "succeeded")
    lost = submit(replica, windows(200))
    until(lambda: look(replica, lost)["progress"] > 0)
    group.redis.kill()
    until(lambda: status(replica, lost) == 503)
    group.redis.start()
    until(lambda: status(replica, lost) == 404)
    until(lambda: not any(replica.folder.iterdir()))  # nobody wants it any more
    path = submit(replica, SOUND)
    until(lambda: look(replica, path)["status"] == "succeeded")


def test_a_result_that_is_done_while_the_store_is_away_is_told_later(group: Replicas) -> None:
    replica = group.start(delay_s=0.2, job_lease_s=600, redis_pause_s=0.5)
    path = submit(replica, windows(5))
    until(lambda: look(replica, path)["status"] == "running")
    group.redis.signal(signal.SIGSTOP)
    until(lambda: any(group.spool.glob("*/result-*")))
    group.redis.signal(signal.SIGCONT)
    until(lambda: status(replica, path) == 200 and look(replica, path)["status"] == "succeeded")
    assert status(replica, f"{path}/result") == 200


def test_a_stream_of_events_goes_on_when_the_store_is_back(group: Replicas) -> None:
    replica = group.start(delay_s=0.2, job_lease_s=600, redis_failures=2, redis_pause_s=0.5, redis_timeout_s=0.2)
    path = submit(replica, windows(30))
    text = ""
    with httpx.stream("GET", f"{replica.url}{path}/events", timeout=PATIENCE_S) as stream:
        for piece in stream.iter_text():
            text += piece
            if "event: progress" in text:
                break
        group.redis.signal(signal.SIGSTOP)
        time.sleep(1)
        group.redis.signal(signal.SIGCONT)
    until(lambda: status(replica, path) == 200 and look(replica, path)["status"] == "succeeded")
    last = max(number for number, _, _ in events(text))
    rest = httpx.get(f"{replica.url}{path}/events", headers={"Last-Event-ID": str(last)}, timeout=PATIENCE_S).text
    whole = httpx.get(f"{replica.url}{path}/events", timeout=PATIENCE_S).text
    assert events(text) + events(rest) == events(whole)
    assert events(whole)[-1][1] == "completed"


def test_without_redis_a_stop_waits_for_the_jobs_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    with fake_server(folder, delay_s=0.2) as server:
        paths = [submit(server, windows(4)) for _ in range(2)]
        until(lambda: look(server, paths[0])["status"] == "running")
        server.signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/readyz", timeout=PATIENCE_S).status_code == 503)
        refused = httpx.post(
            f"{server.url}/v1/jobs", files={"audio": SOUND}, data={"prompt": "dog"}, timeout=PATIENCE_S
        )
        assert refused.status_code == 503
        for path in paths:
            with httpx.stream("GET", f"{server.url}{path}/events", timeout=PATIENCE_S) as stream:
                assert events("".join(stream.iter_text()))[-1][1] == "completed"
            assert httpx.get(f"{server.url}{path}/result", timeout=PATIENCE_S).status_code == 200
        assert server.process.wait(PATIENCE_S) == 0
        assert list(folder.iterdir()) == []


def test_without_redis_a_stop_waits_no_longer_than_its_grace(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    with fake_server(folder, delay_s=0.2, grace_s=1) as server:
        path = submit(server, windows(300))
        until(lambda: look(server, path)["status"] == "running")
        server.signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
        assert list(folder.iterdir()) == []


def test_one_key_on_two_replicas_is_one_job(group: Replicas) -> None:
    pair = [group.start(delay_s=0.0) for _ in range(2)]
    sound = encode(noise(8_000))
    paths = {submit(replica, sound, **{"Idempotency-Key": "k"}) for replica in pair for _ in range(2)}
    assert len(paths) == 1
    (path,) = paths
    until(lambda: look(pair[1], path)["status"] == "succeeded")
    answers = {httpx.get(f"{replica.url}{path}/result", timeout=PATIENCE_S).content for replica in pair}
    assert len(answers) == 1
