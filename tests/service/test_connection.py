"""Clients that stall, lie or break the rules of HTTP, on real sockets."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import httpx
import pytest

from service.connection import MAX_HEAD_LINES
from tests.service.conftest import PATIENCE_S, Running
from tests.service.sounds import encode, noise, silence
from tests.service.wire import closed, connect, form, head, inside, post, read, until

SOUND = encode(noise(16_000))
BODY, CONTENT_TYPE = form(SOUND)


@pytest.mark.parametrize("sent", [b"", b"POST /sep", b"POST /separate HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_head_that_stalls_is_told_so(start, sent: bytes) -> None:
    service = start(head_s=0.5)
    connection = connect(service)
    connection.sendall(sent)
    answer = read(connection)
    assert (answer.status, answer.problem) == (408, "request-stalled")
    assert closed(connection)
    assert service.separate(SOUND).status_code == 200


def test_a_head_that_drips_has_no_longer(start) -> None:
    service = start(head_s=0.5)
    connection = connect(service)
    connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
    connection.settimeout(0.05)
    began = time.monotonic()
    data = b""
    while b"408" not in data:
        assert time.monotonic() - began < PATIENCE_S
        try:
            connection.sendall(b"a")
            data += connection.recv(1_024)
        except TimeoutError:
            continue
    connection.close()


def test_a_connection_that_is_kept_has_as_long_for_its_next_head(start) -> None:
    """And an answer that takes longer than a head may is not cut short by it."""
    service = start(head_s=0.5)
    service.network.take_turn = lambda: time.sleep(1.0)
    connection = connect(service)
    request = head("POST", "/separate", {"Content-Type": CONTENT_TYPE, "Content-Length": len(BODY)}) + BODY
    connection.sendall(request + b"GET /healthz HT")
    assert read(connection).status == 200
    answer = read(connection)
    assert (answer.status, answer.problem) == (408, "request-stalled")
    assert closed(connection)


def test_a_body_that_stands_still_is_told_so(start, temp_folder: Path) -> None:
    service = start(stall_s=0.5)
    connection = post(service, BODY[:5_000], CONTENT_TYPE, length=len(BODY))
    answer = read(connection)
    assert (answer.status, answer.problem) == (408, "request-stalled")
    assert answer.headers["connection"] == "close"
    assert closed(connection)
    until(lambda: inside(service) == 0)


def test_a_body_that_drips_is_told_so_and_one_that_keeps_the_pace_is_not(start) -> None:
    service = start(stall_s=0.6, min_rate=20_000)
    dripping = post(service, BODY[:100], CONTENT_TYPE, length=len(BODY))
    dripping.settimeout(0.1)
    answer = b""
    began = time.monotonic()
    while b"408" not in answer:
        assert time.monotonic() - began < PATIENCE_S
        try:
            dripping.sendall(b"x")
            answer += dripping.recv(1_024)
        except TimeoutError:
            continue
    dripping.close()
    steady = post(service, b"", CONTENT_TYPE, length=len(BODY))
    for start_byte in range(0, len(BODY), 4_000):
        steady.sendall(BODY[start_byte : start_byte + 4_000])
        time.sleep(0.1)  # 40 kB/s, for longer than a stall may last
    assert read(steady).status == 200
    steady.close()


def test_a_reader_that_takes_nothing_is_cut_off(start, temp_folder: Path) -> None:
    service = start(stall_s=0.5)
    body, content_type = form(encode(silence(8_000_000), 192_000))  # 16 MB: more than sockets hold
    connection = post(service, body, content_type)
    assert connection.recv(1_024).startswith(b"HTTP/1.1 200")
    until(lambda: inside(service) == 0)
    until(lambda: not list(temp_folder.iterdir()))
    assert closed(connection)
    assert service.separate(SOUND).status_code == 200


def test_a_slow_upload_makes_place_when_others_wait(start) -> None:
    service = start(running=1, waiting=1)
    slow = [post(service, BODY[:1_000], CONTENT_TYPE, length=len(BODY)) for _ in range(2)]
    until(lambda: inside(service) == 2)
    time.sleep(0.5)  # a moment is given to each
    assert service.separate(SOUND).status_code == 200
    until(lambda: inside(service) == 1)
    slow[1].sendall(BODY[1_000:])
    slow[0].sendall(BODY[1_000:])
    answers = sorted((read(connection) for connection in slow), key=lambda answer: answer.status)
    assert [answer.status for answer in answers] == [200, 408]
    assert answers[1].problem == "request-stalled"
    for connection in slow:
        connection.close()


def test_an_upload_that_keeps_the_pace_does_not_make_place(start) -> None:
    service = start(running=1, waiting=0, min_rate=1)
    upload = post(service, BODY[:20_000], CONTENT_TYPE, length=len(BODY))
    until(lambda: inside(service) == 1)
    time.sleep(1.1)
    assert service.separate(SOUND).status_code == 503
    upload.sendall(BODY[20_000:])
    assert read(upload).status == 200
    upload.close()


def test_two_hundred_slow_uploads_keep_nobody_out(start) -> None:
    """A byte a second each; an honest request in between is served, in little more time than alone."""
    service = start()
    assert service.separate(SOUND).status_code == 200
    began = time.perf_counter()
    assert service.separate(SOUND).status_code == 200
    alone_s = time.perf_counter() - began
    slow = [post(service, BODY[:100], CONTENT_TYPE, length=len(BODY)) for _ in range(200)]
    until(lambda: inside(service) == 27)  # the others were told 503
    times_s = []
    for number in range(3):
        time.sleep(1.1)
        for connection in slow:
            try:
                connection.sendall(BODY[100 + number : 101 + number])
            except ConnectionError:
                continue
        began = time.perf_counter()
        assert service.separate(SOUND).status_code == 200
        times_s.append(time.perf_counter() - began)
    for connection in slow:
        connection.close()
    assert min(times_s) < 5 * alone_s + 0.2
    until(lambda: inside(service) == 0)


def test_ten_thousand_headers(service: Running) -> None:
    for n_lines, status in ((MAX_HEAD_LINES - 10, 200), (10_000, 431)):
        connection = connect(service)
        try:
            connection.sendall(head("GET", "/healthz", {f"X-{number}": "" for number in range(n_lines)}))
        except ConnectionError:
            assert status == 431
        assert read(connection).status == status
        connection.close()


@pytest.mark.parametrize("line", [b"GET /%s HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX-Long: %s\r\n"])
def test_a_head_without_end(service: Running, line: bytes) -> None:
    connection = connect(service)
    with pytest.raises(ConnectionError):  # it is not read on for long
        connection.sendall(line % (b"a" * 50_000_000))
    connection.close()
    assert service.client.get("/healthz").status_code == 200


def test_a_head_too_large_is_a_problem_like_any_other(service: Running) -> None:
    answer = service.client.get("/healthz", headers={"X-Long": "a" * 70_000})
    assert (answer.status_code, answer.json()["type"]) == (431, "/problems/head-too-large")
    assert answer.json()["instance"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"POST /separate HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /separate HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /separate HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /separate HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_not_http(service: Running, sent: bytes) -> None:
    connection = connect(service)
    connection.sendall(sent)
    answer = read(connection)
    assert (answer.status, answer.problem) == (400, "malformed-request")
    assert closed(connection)


def test_a_length_that_says_too_much_or_too_little(start) -> None:
    service = start(stall_s=0.5)
    longer = post(service, BODY, CONTENT_TYPE, length=len(BODY) + 10)
    answer = read(longer)
    assert (answer.status, answer.problem) == (408, "request-stalled")
    longer.close()
    shorter = post(service, BODY, CONTENT_TYPE, length=len(BODY) - 10)
    assert read(shorter).status == 400
    assert closed(shorter)
    until(lambda: inside(service) == 0)


def test_a_length_over_the_limit_is_refused_unread(start, temp_folder: Path) -> None:
    service = start(max_upload_bytes=100_000)
    connection = post(service, b"", CONTENT_TYPE, length=5_000_000)
    answer = read(connection)
    assert (answer.status, answer.problem) == (413, "upload-too-large")
    connection.close()
    until(lambda: inside(service) == 0)


def test_chunks_are_counted(start) -> None:
    service = start(max_upload_bytes=100_000)

    def chunks():
        yield BODY[:9_000]
        for _ in range(100):
            yield bytes(40_000)

    answer = service.client.post("/separate", content=chunks(), headers={"Content-Type": CONTENT_TYPE})
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/upload-too-large")
    whole = service.client.post(
        "/separate", content=iter([BODY[:9_000], BODY[9_000:]]), headers={"Content-Type": CONTENT_TYPE}
    )
    assert whole.status_code == 200


def test_an_urlencoded_form_is_not_taken(service: Running) -> None:
    answer = service.client.post("/separate", data={"prompt": "dog", "audio": "a" * 1_000_000})
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/not-multipart")


def test_fields_and_headers_that_are_there_twice(service: Running) -> None:
    twice = service.client.post(
        "/separate",
        files=[("audio", SOUND), ("prompt", (None, "dog")), ("output", (None, "both")), ("output", (None, "target"))],
    )
    assert (twice.status_code, twice.json()["field"]) == (422, "output")
    boundaries = httpx.post(
        f"{service.url}/separate",
        content=BODY,
        headers=[("Content-Type", CONTENT_TYPE), ("Content-Type", "multipart/form-data; boundary=other")],
        timeout=PATIENCE_S,
    )
    assert boundaries.status_code in (200, 400, 415)


def test_pipelined_requests_are_answered_in_their_order(service: Running) -> None:
    connection = connect(service)
    request = head("POST", "/separate", {"Content-Type": CONTENT_TYPE, "Content-Length": len(BODY)}) + BODY
    connection.sendall(request + head("GET", "/healthz") + head("GET", "/nowhere"))
    assert [read_one(connection).status for _ in range(3)] == [200, 200, 404]
    connection.close()


def read_one(connection: socket.socket):
    """One answer and not a byte more."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += connection.recv(1)
    length = next(
        int(line.split(b":")[1]) for line in data.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    while length:
        length -= len(connection.recv(min(length, 65_536)))
    from tests.service.wire import Answer

    return Answer(int(data.split()[1]), {}, b"")


def test_an_upgrade_that_is_offered_is_passed_over_or_refused_with_its_reason(service: Running) -> None:
    """As curl --http2 offers it. The parser would drop a body, and the answer be that there is no recording."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}
    connection = post(service, BODY, CONTENT_TYPE, headers=offer)
    answer = read(connection)
    connection.close()
    assert answer.status == 400 and "Upgrade" in answer.json()["detail"]
    assert service.client.get("/healthz", headers=offer).status_code == 200
