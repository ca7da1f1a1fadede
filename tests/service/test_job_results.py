"""Results of jobs and the files behind them: how long they are there, in parts, unchanged, within bounds."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import spool as spool_module
from service.job import new_id
from service.spool import Spool
from service.workspace import Workspace
from tests.service.job_calls import Start, ended, jobs_of, look, problem, submit
from tests.service.sounds import encode, noise
from tests.service.wire import until


def test_delete_what_has_ended(start: Start) -> None:
    running = start()
    path = submit(running).headers["location"]
    result = ended(running, path)["result"]
    for _ in range(2):
        assert running.client.delete(path).status_code == 204
        assert look(running, path)["status"] == "expired"
        assert problem(running.client.get(result)) == (410, "job-gone")
    assert list(jobs_of(running).spool.folder.iterdir()) == []


def test_unfinished_jobs_have_no_result_yet(start: Start) -> None:
    running = start()
    running.network.gate.clear()
    path = submit(running).headers["location"]
    answer = running.client.get(f"{path}/result")
    assert problem(answer) == (409, "job-unfinished") and int(answer.headers["retry-after"]) >= 1
    assert int(running.client.get(path).headers["retry-after"]) >= 1
    running.network.gate.set()
    ended(running, path)
    assert problem(running.client.get(f"{path}/result/..%2fupload")) == (404, "not-found")
    assert problem(running.client.get(f"{path}/result/upload")) == (404, "job-not-found")


def test_results_expire(start: Start) -> None:
    running = start(job_keep_s=0.5, job_remember_s=1.5)
    path = submit(running).headers["location"]
    until(lambda: look(running, path)["status"] == "expired")
    assert problem(running.client.get(f"{path}/result")) == (410, "job-gone")
    until(lambda: list(jobs_of(running).spool.folder.iterdir()) == [])
    until(lambda: running.client.get(path).status_code == 404)
    assert problem(running.client.get(f"{path}/result")) == (404, "job-not-found")
    assert problem(running.client.delete(path)) == (404, "job-not-found")


def test_the_spool_is_bounded(start: Start) -> None:
    running = start(max_spool_bytes=2**20)
    assert problem(submit(running, encode(noise(2**20)))) == (503, "storage-full")
    assert list(jobs_of(running).spool.folder.iterdir()) == []
    assert ended(running, submit(running).headers["location"])["status"] == "succeeded"


def test_the_first_jobs_share_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Workspace):
        def __init__(self) -> None:
            time.sleep(0.05)
            super().__init__()

    monkeypatch.setattr(spool_module, "Workspace", Slow)
    spool = Spool(None, 0)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(lambda _: spool.folder, range(8)))) == 1
    finally:
        spool.close()


def test_ranges_of_results_equal_the_whole(start: Start) -> None:
    running = start()
    path = submit(running, prompt=["dog", "rain"]).headers["location"]
    job = ended(running, path)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from([job["result"], *(stem["href"] for stem in job["stems"])]), st.data())
    def check(url: str, data: st.DataObject) -> None:
        whole = running.client.get(url)
        size = len(whole.content)
        assert whole.headers["accept-ranges"] == "bytes"
        ends = st.one_of(st.none(), st.integers(0, size + 10), st.sampled_from([0, size - 1, size]))
        first, last = data.draw(ends), data.draw(ends)
        asked = f"bytes={'' if first is None else first}-{'' if last is None else last}"
        etag = data.draw(st.sampled_from([None, whole.headers["etag"], '"another"']))
        answer = running.client.get(url, headers={"Range": asked} | ({"If-Range": etag} if etag else {}))
        if etag == '"another"' or first is last is None or (None not in (first, last) and last < first):  # type: ignore[operator]
            assert (answer.status_code, answer.content) == (200, whole.content)
            return
        begin = max(size - last, 0) if first is None else first  # type: ignore[operator]
        end = size if first is None or last is None else min(last + 1, size)
        if begin >= end:
            assert problem(answer) == (416, "range-not-satisfiable")
            assert answer.headers["content-range"] == f"bytes */{size}"
            return
        assert (answer.status_code, answer.content) == (206, whole.content[begin:end])
        assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
        assert answer.headers["etag"] == whole.headers["etag"]

    check()


def test_conditional_requests(start: Start) -> None:
    running = start()
    url = ended(running, submit(running).headers["location"])["result"]
    whole = running.client.get(url)
    etag = whole.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    for value in (etag, f'"x", W/{etag}', "*"):
        answer = running.client.get(url, headers={"If-None-Match": value})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert running.client.get(url, headers={"If-None-Match": '"x"'}).content == whole.content
    for several in ("bytes=0-1,4-5", "pages=1-2", "bytes=x-y"):
        assert running.client.get(url, headers={"Range": several}).content == whole.content
    only_head = running.client.head(url)
    assert (only_head.status_code, only_head.content) == (200, b"")
    assert only_head.headers["content-length"] == str(len(whole.content))


def test_what_nobody_knows_is_swept_away_and_nothing_else(start: Start) -> None:
    running = start()
    path = submit(running).headers["location"]
    ended(running, path)
    jobs = jobs_of(running)
    orphan, foreign = jobs.spool.folder / new_id(), jobs.spool.folder / "something of the operator's"
    for folder in (orphan, foreign):
        folder.mkdir()
    jobs.sweep(3_600)
    assert orphan.exists()
    jobs.sweep(0)
    assert not orphan.exists() and foreign.exists()
    assert running.client.get(f"{path}/result").status_code == 200
