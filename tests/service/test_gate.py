"""What is decided from the head of a request: keys, quotas, origins. Places and deadlines: test_deadlines.py."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service import cli
from service.connection import Connection
from service.errors import StartError
from service.keys import KeyRing, digest_of, new_secret, require_keys_or_loopback
from service.settings import Settings
from tests.service.conftest import PATIENCE_S, Running
from tests.service.sounds import encode, noise, silence
from tests.service.wire import closed, connect, form, head, inside, read, until

SOUND = encode(noise(16_000))
SECRET, OTHER = "wk_first", "wk_second"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# keys\n\nalice {digest_of(SECRET)}\nbob {digest_of(OTHER).upper()} 2/2/1\n")
    return path


def ask(service: Running, headers: dict[str, str] | list[tuple[str, str]] | None = None) -> httpx.Response:
    return service.client.post("/separate", files={"audio": SOUND}, data={"prompt": "dog"}, headers=headers)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_a_key_opens_every_path_and_its_absence_none(start, keys_file: Path) -> None:
    service = start(api_keys_file=keys_file)
    for headers in (bearer(SECRET), {"X-API-Key": SECRET}, {"authorization": f"bearer {SECRET}"}):
        assert ask(service, headers).status_code == 200
    for path in ("/separate", "/v1/separate", "/nowhere"):
        assert service.client.post(path).status_code == 401
    for path in ("/v1/info", "/v1/models", "/nowhere"):
        assert service.client.get(path).status_code == 401
        assert service.client.get(path, headers=bearer(SECRET)).status_code in (200, 404)
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert service.client.get(path).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer wrong")],
        [("Authorization", SECRET)],
        [("Authorization", f"Basic {SECRET}")],
        [("Authorization", "Bearer")],
        [("X-API-Key", "")],
        [("X-API-Key", digest_of(SECRET))],
        [("X-API-Key", SECRET), ("X-API-Key", OTHER)],
        [("X-API-Key", SECRET), ("Authorization", f"Bearer {OTHER}")],
        [("Authorization", f"Bearer {SECRET}"), ("Authorization", "Bearer wrong")],
    ],
)
def test_what_is_no_key(start, keys_file: Path, headers: list[tuple[str, str]]) -> None:
    refused = ask(start(api_keys_file=keys_file), headers)
    assert (refused.status_code, refused.json()["type"]) == (401, "/problems/unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert SECRET not in refused.text


def test_401_is_answered_before_64_kib_of_body_were_read(
    start, keys_file: Path, monkeypatch: pytest.MonkeyPatch, temp_folder: Path
) -> None:
    """Counted where the server reads from the socket, until it writes its answer; the client pushes all it can."""
    read_bytes, at_answer = [0], [0]
    buffer_updated, connection_made = Connection.buffer_updated, Connection.connection_made

    def counted(self: Connection, nbytes: int) -> None:
        read_bytes[0] += nbytes
        buffer_updated(self, nbytes)

    def watched(self: Connection, transport) -> None:
        write = transport.write

        def first(data: bytes) -> None:
            at_answer[0] = at_answer[0] or read_bytes[0]
            write(data)

        transport.write = first
        connection_made(self, transport)

    monkeypatch.setattr(Connection, "buffer_updated", counted)
    monkeypatch.setattr(Connection, "connection_made", watched)
    service = start(api_keys_file=keys_file)
    body, content_type = form(encode(silence(20_000_000)))
    connection = connect(service)
    connection.setblocking(False)
    request = memoryview(head("POST", "/separate", {"Content-Type": content_type, "Content-Length": len(body)}) + body)
    sent = connection.send(request)  # the head and as much of the body as the system takes
    assert sent > 64 * 1024
    connection.settimeout(PATIENCE_S)
    answer = read(connection)
    connection.close()
    assert answer.status == 401
    assert 0 < at_answer[0] < 64 * 1024
    assert list(temp_folder.iterdir()) == []


def test_a_refusal_reaches_a_client_that_sends_on(start, keys_file: Path) -> None:
    """As curl does it: the whole body first, then the answer. Closing at once would reset the connection."""
    service = start(api_keys_file=keys_file)
    for _ in range(5):
        answer = service.client.post("/separate", files={"audio": encode(silence(2_000_000))}, data={"prompt": "dog"})
        assert answer.status_code == 401


def test_a_client_that_asks_first_sends_no_body(start, keys_file: Path) -> None:
    service = start(api_keys_file=keys_file)
    body, content_type = form(SOUND)
    expect = {"Content-Type": content_type, "Content-Length": len(body), "Expect": "100-continue"}
    connection = connect(service)
    connection.sendall(head("POST", "/separate", expect))
    answer = read(connection)
    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert closed(connection)
    connection = connect(service)
    connection.sendall(head("POST", "/separate", {**expect, **bearer(SECRET)}))
    assert connection.recv(1_024) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body)
    assert read(connection).status == 200
    connection.close()


def test_keys_are_read_again_when_the_file_changes(start, keys_file: Path) -> None:
    service = start(api_keys_file=keys_file)
    assert ask(service, bearer("wk_new")).status_code == 401
    keys_file.write_text(f"alice {digest_of(SECRET)}\nalice-2 {digest_of('wk_new')}\n")
    until(lambda: ask(service, bearer("wk_new")).status_code == 200)
    assert ask(service, bearer(SECRET)).status_code == 200
    assert ask(service, bearer(OTHER)).status_code == 401
    keys_file.write_text("not a line of keys\n")
    time.sleep(1.1)
    assert ask(service, bearer("wk_new")).status_code == 200


def test_a_ring_looks_at_its_file_once_a_second_or_when_told(keys_file: Path) -> None:
    now_s = [0.0]
    ring = KeyRing(keys_file, None, lambda: now_s[0])
    keys_file.write_text(f"carol {digest_of('wk_c')}\n")
    headers = httpx.Headers({"X-API-Key": "wk_c"})
    from starlette.datastructures import Headers

    from service.errors import Unauthorized

    asked = Headers(headers)
    with pytest.raises(Unauthorized):
        ring.require(asked)
    ring.refresh(force=True)
    assert ring.require(asked).id == "carol"
    keys_file.unlink()
    now_s[0] = 2.0
    assert ring.require(asked).id == "carol"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nobody\n",
        "alice\n",
        "alice 1234\n",
        f"al/ice {digest_of('a')}\n",
        f"alice {digest_of('a')} 60\n",
        f"alice {digest_of('a')} 60/10/4 more\n",
        f"alice {digest_of('a')}\nalice {digest_of('b')}\n",
    ],
)
def test_a_broken_file_of_keys_keeps_the_service_from_starting(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(StartError, match="WINNOW_API_KEYS_FILE"):
        KeyRing(path, None)
    path.unlink()
    with pytest.raises(StartError, match="WINNOW_API_KEYS_FILE"):
        KeyRing(path, None)


def test_the_command_line_makes_a_key_that_opens(start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["key", "carol"]) == 0
    said = capsys.readouterr()
    secret, line = said.out.split("\n")[:2]
    assert line == f"carol {hashlib.sha256(secret.encode()).hexdigest()}" and len(secret) > 40
    (tmp_path / "keys").write_text(line + "\n")
    assert ask(start(api_keys_file=tmp_path / "keys"), bearer(secret)).status_code == 200
    assert new_secret() != new_secret()
    assert cli.main(["key", "not a name"]) == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "service.example"])
def test_strangers_need_keys_or_a_word_of_the_operator(host: str, keys_file: Path) -> None:
    with pytest.raises(StartError, match="WINNOW_ALLOW_ANONYMOUS"):
        require_keys_or_loopback(Settings(host=host))
    require_keys_or_loopback(Settings(host=host, allow_anonymous=True))
    require_keys_or_loopback(Settings(host=host, api_keys_file=keys_file))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    require_keys_or_loopback(Settings(host=host))


def test_serve_refuses_an_open_door(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in os.environ if name.startswith("WINNOW_")]:
        monkeypatch.delenv(name)
    assert cli.main(["serve", "--host", "0.0.0.0"]) == 2
    assert "there are no keys" in capsys.readouterr().err


def test_logs_carry_the_key_id_and_never_the_key(start, keys_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    service = start(api_keys_file=keys_file)
    assert ask(service, bearer(SECRET)).status_code == 200
    assert ask(service, bearer("wk_wrong")).status_code == 401

    def lines() -> list[dict[str, object]]:
        return [record.facts for record in caplog.records if hasattr(record, "facts") and "status" in record.facts]

    until(lambda: len(lines()) == 2)
    assert [(line.get("key"), line["status"], line.get("problem")) for line in lines()] == [
        ("alice", 200, None),
        (None, 401, "unauthorized"),
    ]
    assert not any(word in str(lines()) for word in (SECRET, "wk_wrong", digest_of(SECRET)))
    assert SECRET not in caplog.text and "wk_wrong" not in caplog.text and digest_of(SECRET) not in caplog.text


def test_the_quota_of_a_key(start, keys_file: Path) -> None:
    service = start(api_keys_file=keys_file)
    assert [ask(service, bearer(OTHER)).status_code for _ in range(2)] == [200, 200]
    refused = ask(service, bearer(OTHER))
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/quota-exceeded")
    assert 1 <= int(refused.headers["retry-after"]) == refused.json()["retry_after"] <= 61
    assert ask(service, bearer(SECRET)).status_code == 200
    assert service.client.get("/v1/info", headers=bearer(OTHER)).status_code == 200


def test_the_quota_at_once_ends_with_the_request(start, keys_file: Path) -> None:
    keys_file.write_text(f"bob {digest_of(OTHER)} 1000/1000/1\n")
    service = start(api_keys_file=keys_file)
    service.network.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, service, bearer(OTHER))
        until(lambda: inside(service) == 1)
        assert ask(service, bearer(OTHER)).status_code == 429
        service.network.gate.set()
        assert first.result().status_code == 200
    until(lambda: inside(service) == 0)
    assert ask(service, bearer(OTHER)).status_code == 200


def test_the_quota_of_an_address_and_whose_word_for_it_is_taken(start) -> None:
    service = start(address_quota="2/2/2")
    forged = [ask(service, {"X-Forwarded-For": f"10.0.0.{number}"}).status_code for number in range(3)]
    assert forged == [200, 200, 429]
    behind = start(address_quota="1/1/1", trusted_proxies="127.0.0.1")
    told = [ask(behind, {"X-Forwarded-For": f"10.0.0.{number}"}).status_code for number in (1, 2, 1)]
    assert told == [200, 200, 429]


def test_other_origins_are_not_let_in_unless_listed(start) -> None:
    origin = {"Origin": "https://page.example"}
    closed_service = start()
    assert "access-control-allow-origin" not in ask(closed_service, origin).headers
    service = start(cors_origins="https://page.example, https://other.example")
    answer = ask(service, origin)
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert "access-control-allow-credentials" not in answer.headers
    assert "x-presence" in answer.headers["access-control-expose-headers"].lower()
    assert "access-control-allow-origin" not in ask(service, {"Origin": "https://evil.example"}).headers


def test_a_page_may_ask_beforehand_without_its_key_and_reads_refusals(start, keys_file: Path) -> None:
    service = start(cors_origins="https://page.example", api_keys_file=keys_file)
    preflight = service.client.options(
        "/separate",
        headers={
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    assert preflight.status_code == 200
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    refused = ask(service, {"Origin": "https://page.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://page.example")


@pytest.mark.parametrize("text", ["*", "https://a.example/path", "page.example", "https://*.example"])
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        Settings(cors_origins=text)
