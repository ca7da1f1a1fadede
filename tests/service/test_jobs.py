"""Jobs over HTTP: the same sounds as from /separate, later."""

from __future__ import annotations

import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.job import new_id
from tests.service.conftest import required
from tests.service.fake_server import ROOT
from tests.service.job_calls import SOUND, Start, at_work, ended, events, jobs_of, look, problem, submit, windows
from tests.service.sounds import encode, noise
from tests.service.test_separation import unzip
from tests.service.wire import closed, connect, head, leave, until


@pytest.mark.parametrize(
    ("prompts", "fields"),
    [
        (["dog"], {}),
        (["dog"], {"format": "flac", "output": "residual"}),
        (["dog", "rain", "nothing"], {"output": "both", "subtype": "pcm24"}),
        (["dog", "dog"], {"format": "ogg"}),
    ],
)
def test_a_job_gives_what_separate_gives(start: Start, prompts: list[str], fields: dict[str, str]) -> None:
    running = start()
    accepted = submit(running, prompt=prompts, **fields)
    assert accepted.status_code == 202
    path = accepted.headers["location"]
    assert re.fullmatch(r"/v1/jobs/[0-9a-f]{32}", path)
    assert 1 <= int(accepted.headers["retry-after"]) <= 60
    assert accepted.json()["status"] in ("queued", "running", "succeeded")
    job = ended(running, path)
    assert job["status"] == "succeeded" and job["progress"] == 1 and job["error"] is None
    expected = running.client.post("/separate", files={"audio": SOUND}, data={"prompt": prompts, **fields})
    assert expected.status_code == 200
    answer = running.client.get(job["result"])
    assert answer.content == expected.content
    for name in ("content-type", "content-length", "content-disposition", "x-presence", "x-model-version"):
        assert answer.headers[name] == expected.headers[name], name
    parts = {job["stems"][0]["file"]: expected.content}
    if expected.headers["content-type"] == "application/zip":
        manifest, parts = unzip(expected.content)
        listed = [{k: stem[k] for k in ("prompt", "file", "presence", "spans")} for stem in job["stems"]]
        assert [stem for stem in listed if stem["prompt"]] == manifest["stems"]
    assert [stem["file"] for stem in job["stems"]] == list(parts)
    for stem in job["stems"]:
        part = running.client.get(stem["href"])
        assert part.content == parts[stem["file"]] and len(part.content) == stem["bytes"]
        assert part.headers["content-type"].startswith("audio/")


def test_prefer_respond_async_makes_a_job(start: Start) -> None:
    running = start()
    for value in ("respond-async", "wait=5, Respond-Async; x=1"):
        answer = running.client.post(
            "/separate", files={"audio": SOUND}, data={"prompt": "dog"}, headers={"Prefer": value}
        )
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
        assert ended(running, answer.headers["location"])["status"] == "succeeded"
    plain = running.client.post(
        "/separate", files={"audio": SOUND}, data={"prompt": "dog"}, headers={"Prefer": "respond-asynchronously"}
    )
    assert plain.status_code == 200 and "preference-applied" not in plain.headers


def test_a_client_that_accepts_json_alone_gets_a_job(start: Start) -> None:
    running = start()
    accepted = submit(running, headers={"Accept": "application/json"})
    assert ended(running, accepted.headers["location"])["stems"][0]["file"] == "dog.wav"
    accepted = submit(running, headers={"Accept": "audio/flac"})
    assert ended(running, accepted.headers["location"])["stems"][0]["file"] == "dog.flac"


def test_what_is_wrong_with_a_form_is_said_at_once(start: Start) -> None:
    running = start()
    assert problem(submit(running, b"no sound at all, not by far")) == (415, "unsupported-audio")
    assert problem(submit(running, b"")) == (422, "empty-audio")
    assert problem(submit(running, prompt="")) == (422, "invalid-field")
    assert problem(submit(running, output="all")) == (422, "invalid-field")
    assert problem(submit(running, headers={"Idempotency-Key": "x" * 256})) == (422, "invalid-field")
    assert problem(running.client.post("/v1/jobs", files={"audio": SOUND})) == (422, "missing-field")
    assert problem(running.client.post("/v1/jobs", content=b"{}", headers={"Content-Type": "application/json"})) == (
        415,
        "not-multipart",
    )
    assert jobs_of(running).store.counts().queued == 0
    assert list(jobs_of(running).spool.folder.iterdir()) == []


def test_a_job_that_fails_answers_with_the_problem_that_separate_would(start: Start) -> None:
    running = start()
    bad = encode(noise(16_000, 2), format="FLAC")
    bad = bad[: len(bad) // 2] + bytes(len(bad) // 2)
    path = submit(running, bad).headers["location"]
    job = ended(running, path)
    assert job["status"] == "failed" and job["stems"] == [] and job["result"] is None
    expected = running.client.post("/separate", files={"audio": bad}, data={"prompt": "dog"})
    answer = running.client.get(f"{path}/result")
    assert problem(answer) == problem(expected)
    assert job["error"] == answer.json()
    assert {**expected.json(), "instance": path.rpartition("/")[2]} == answer.json()
    assert problem(running.client.get(f"{path}/result/dog.wav")) == (404, "job-not-found")
    assert list(jobs_of(running).spool.folder.iterdir()) == []
    running.network.fail = RuntimeError("a secret")
    path = submit(running).headers["location"]
    assert ended(running, path)["error"]["type"] == "/problems/internal"
    assert "secret" not in json.dumps(look(running, path))


def test_a_job_may_be_longer_than_a_request(start: Start) -> None:
    running = start(max_audio_s=1, max_job_audio_s=3)
    long, too_long = encode(noise(2 * 16_000)), encode(noise(4 * 16_000))
    assert problem(running.separate(long)) == (413, "audio-too-long")
    assert ended(running, submit(running, long).headers["location"])["status"] == "succeeded"
    failed = ended(running, submit(running, too_long).headers["location"])
    assert (failed["status"], failed["error"]["type"]) == ("failed", "/problems/audio-too-long")


def test_place_and_progress_are_monotonic_and_events_tell_the_same(start: Start) -> None:
    running = start()
    running.network.take_turn = lambda: time.sleep(0.02)
    paths = [submit(running, windows(8)).headers["location"] for _ in range(4)]
    seen: dict[str, list[dict[str, Any]]] = {path: [] for path in paths}

    def watch() -> bool:
        for path in paths:
            seen[path].append(look(running, path))
        return all(seen[path][-1]["status"] == "succeeded" for path in paths)

    until(watch)
    order = ["queued", "running", "succeeded"]
    for path, jobs in seen.items():
        places = [job["queue_position"] for job in jobs if job["queue_position"] is not None]
        assert places == sorted(places, reverse=True)
        assert [job["progress"] for job in jobs] == sorted(job["progress"] for job in jobs)
        assert [job["status"] for job in jobs] == sorted((job["status"] for job in jobs), key=order.index)
        told = events(running.client.get(f"{path}/events").text)
        assert [number for number, _, _ in told] == list(range(1, len(told) + 1))
        assert told[0][1] == "queued" and told[-1][1] == "completed"
        assert [data["progress"] for *_, data in told] == sorted(data["progress"] for *_, data in told)
    assert any(job["queue_position"] for job in seen[paths[-1]])
    finished = [look(running, path)["finished_at"] for path in paths]
    assert finished == sorted(finished)  # one worker: first come, first served


def test_events_are_replayed_exactly_from_any_of_them(start: Start) -> None:
    running = start()
    path = submit(running, windows(6)).headers["location"]
    live = running.client.get(f"{path}/events")
    assert live.headers["content-type"].startswith("text/event-stream") and live.text.startswith("retry: ")
    assert live.headers["cache-control"] == "no-store"
    ended(running, path)
    whole = running.client.get(f"{path}/events").text
    assert whole == live.text
    told = events(whole)
    for number, _, _ in told[:-1]:
        rest = running.client.get(f"{path}/events", headers={"Last-Event-ID": str(number)})
        assert events(rest.text) == told[number:]
    over = running.client.get(f"{path}/events", headers={"Last-Event-ID": str(len(told))})
    assert (over.status_code, over.content) == (204, b"")
    for nonsense in ("x", "-1", "9" * 30):
        assert events(running.client.get(f"{path}/events", headers={"Last-Event-ID": nonsense}).text) == told


def test_a_listener_that_leaves_leaves_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.job_routes.HEARTBEAT_S", 0.05)
    running = start()
    running.network.gate.clear()
    path = submit(running).headers["location"]
    listeners = []
    for _ in range(20):
        connection = connect(running)
        connection.sendall(head("GET", f"{path}/events"))
        text = b""
        while b": heartbeat" not in text:
            text += connection.recv(65_536)
        assert b"event: queued" in text
        listeners.append(connection)
    assert jobs_of(running)._n_listeners == 20
    for connection in listeners:
        leave(connection)
    until(lambda: jobs_of(running)._n_listeners == 0)
    running.network.gate.set()
    assert ended(running, path)["status"] == "succeeded"


def test_too_many_listeners_are_told_so(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.jobs._LISTENERS", 1)
    running = start()
    running.network.gate.clear()
    path = submit(running).headers["location"]
    with running.client.stream("GET", f"{path}/events") as stream:
        assert stream.status_code == 200
        assert problem(running.client.get(f"{path}/events")) == (503, "busy")
    running.network.gate.set()


def test_cancel_a_running_job_and_none_of_its_windows_run_on(start: Start) -> None:
    running = start()
    running.network.gate.clear()
    path = submit(running, windows(40)).headers["location"]
    waiting = submit(running, windows(40)).headers["location"]
    at_work(running, path)
    with running.client.stream("GET", f"{path}/events") as stream, ThreadPoolExecutor(1) as threads:
        told = threads.submit(lambda: "".join(stream.iter_text()))
        before = running.network.n_masks
        for each in (waiting, path, path, waiting):
            assert running.client.delete(each).status_code == 204
        running.network.gate.set()
        assert [name for _, name, _ in events(told.result())][-1] == "canceled"
    until(lambda: not jobs_of(running).runner._works)
    assert running.network.n_masks <= before + 1  # the one that was in the network
    for each in (path, waiting):
        job = look(running, each)
        assert (job["status"], job["stems"], job["error"]) == ("canceled", [], None)
        assert problem(running.client.get(f"{each}/result")) == (410, "job-gone")
    assert list(jobs_of(running).spool.folder.iterdir()) == []
    assert ended(running, submit(running).headers["location"])["status"] == "succeeded"


def test_no_such_job(start: Start) -> None:
    running = start()
    for job_id in (new_id(), "x", "0" * 33, "%2e%2e"):
        for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/result"), ("GET", "/result/a"), ("DELETE", "")):
            answer = running.client.request(method, f"/v1/jobs/{job_id}{path}")
            assert answer.status_code == 404, (method, job_id, path)


def test_bounds_refuse_before_the_body(start: Start) -> None:
    running = start(max_jobs_waiting=1)
    running.network.gate.clear()
    first = submit(running).headers["location"]
    at_work(running, first)
    submit(running)
    connection = connect(running)
    stated = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": 10**9}
    connection.sendall(head("POST", "/v1/jobs", stated))
    answer = connection.recv(65_536)
    assert b" 503 " in answer and b"retry-after" in answer.lower()
    assert closed(connection)
    running.network.gate.set()


def test_one_key_is_one_job_also_all_at_once(start: Start) -> None:
    running = start()
    running.network.gate.clear()
    key = {"Idempotency-Key": "the same"}
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: submit(running, headers=key), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    (path,) = {answer.headers["location"] for answer in answers}
    assert len(list(jobs_of(running).spool.folder.iterdir())) == 1
    assert problem(submit(running, encode(noise(100)), headers=key)) == (422, "idempotency-mismatch")
    assert problem(submit(running, prompt="rain", headers=key)) == (422, "idempotency-mismatch")
    assert submit(running, headers={"Idempotency-Key": "another"}).headers["location"] != path
    running.network.gate.set()
    assert ended(running, path)["status"] == "succeeded"
    assert submit(running, headers=key).json()["status"] == "succeeded"


def test_a_job_belongs_to_its_key(start: Start, tmp_path: Path) -> None:
    from service.keys import line_of

    file = tmp_path / "keys"
    file.write_text("".join(f"{line_of(name, name * 8)} none\n" for name in ("mine", "other")))
    running = start(api_keys_file=file)
    mine, other = ({"Authorization": f"Bearer {name * 8}"} for name in ("mine", "other"))
    key = {"Idempotency-Key": "k"}
    path = submit(running, headers={**mine, **key}).headers["location"]
    until(lambda: running.client.get(path, headers=mine).json()["status"] == "succeeded")
    for method, more in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/result"),
        ("GET", "/result/dog.wav"),
        ("DELETE", ""),
    ):
        assert problem(running.client.request(method, path + more, headers=other)) == (404, "job-not-found")
        assert problem(running.client.request(method, path + more)) == (401, "unauthorized")
    assert submit(running, headers={**other, **key}).headers["location"] != path
    assert running.client.get(f"{path}/result", headers=mine).status_code == 200


def test_info_says_that_jobs_are_volatile(start: Start) -> None:
    running = start(max_jobs_waiting=7)
    info = running.client.get("/v1/info").json()
    assert info["jobs"] == "volatile" and info["limits"]["max_jobs_waiting"] == 7


def test_the_lines_of_the_document_run(start: Start, tmp_path: Path) -> None:
    """What docs/service.md shows of jobs, as it stands there."""
    running = start()
    (tmp_path / "mix.wav").write_bytes(encode(noise(5 * 16_000)))
    chapter = (ROOT / "docs" / "service.md").read_text().partition("\n## Jobs\n")[2].partition("\n## ")[0]
    script = chapter.split("```")[1].replace("http://127.0.0.1:8000", running.url)
    assert script.count("curl") == 8
    required("curl")
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    job = json.loads((tmp_path / "job.json").read_text())
    assert job["status"] == "succeeded" and "event: completed" in done.stdout
    _, files = unzip((tmp_path / "stems.zip").read_bytes())
    assert files["1_dog_barking.wav"] == (tmp_path / "dog.wav").read_bytes()
    assert files["residual.wav"][:65_536] == (tmp_path / "begin.wav").read_bytes()
    assert look(running, job["events"].removesuffix("/events"))["status"] == "expired"
    until(lambda: jobs_of(running).counts.running == 0 and not jobs_of(running).runner._works)
