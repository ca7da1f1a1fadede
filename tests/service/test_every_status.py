"""Every route with every problem: one table, one form of answer, nothing echoed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from service.admission import Admission
from service.errors import CapacityError, WinnowError
from service.gate import OPEN_PATHS, Gate
from service.problems import INTERNAL, PROBLEMS, Problem
from service.separation import Separator
from tests.service.conftest import Running
from tests.service.sounds import encode, noise
from tests.service.wire import service_of, until

SOUND = encode(noise(800))
_ECHO = "Xq7-never-said"


def operations(service: Running) -> Iterator[tuple[str, str]]:
    """Every method and path of the document, with something where a path has a gap."""
    for path, methods in service.client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"\{[^}]+\}", _ECHO, path)


def ask(service: Running, method: str, path: str, **more) -> httpx.Response:
    if method == "POST":
        more = {"files": {"audio": (f"{_ECHO}.wav", SOUND)}, "data": {"prompt": _ECHO}, **more}
    return service.client.request(method, path, **more)


def check(answer: httpx.Response, row: Problem, retry_after_s: int | None = None) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (row.status, "application/problem+json")
    body = answer.json()
    assert (body["type"], body["title"], body["status"]) == (f"/problems/{row.kind}", row.title, row.status)
    assert body["instance"] == answer.headers["x-request-id"]
    assert set(body) <= {"type", "title", "status", "detail", "instance", "field", "limit", "retry_after"}
    assert answer.headers.get("retry-after") == (None if retry_after_s is None else str(retry_after_s))
    assert ("www-authenticate" in answer.headers) == (row.status == 401)
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert _ECHO not in answer.text


def raised(kind: type[WinnowError]) -> WinnowError:
    return kind("why", retry_after_s=7) if issubclass(kind, CapacityError) else kind("why")


def test_every_route_with_every_problem(start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised where a request comes in: whatever a route may answer, it answers by the table."""
    service = start()
    walked = [each for each in operations(service) if each[1] not in OPEN_PATHS]
    assert {("POST", "/separate"), ("POST", "/v1/separate"), ("GET", "/v1/info")} <= set(walked)
    for kind, row in PROBLEMS.items():
        with monkeypatch.context() as patch:

            def refuse(*_: object, kind: type[WinnowError] = kind) -> None:
                raise raised(kind)

            patch.setattr(Gate, "_admit", refuse)
            for method, path in walked:
                check(ask(service, method, path), row, 7 if issubclass(kind, CapacityError) else None)
            for path in ("/healthz", "/readyz"):
                assert service.client.get(path).status_code == 200


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_problem_in_the_middle_of_the_work(
    service: Running, monkeypatch: pytest.MonkeyPatch, kind: type[WinnowError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised(kind)

    monkeypatch.setattr(Separator, "run", fail)
    for path in ("/separate", "/v1/separate"):
        check(ask(service, "POST", path), PROBLEMS[kind], 7 if issubclass(kind, CapacityError) else None)


def test_what_nobody_foresaw(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError(_ECHO)

    monkeypatch.setattr(Separator, "run", fail)
    check(ask(service, "POST", "/separate"), INTERNAL)
    monkeypatch.setattr(Admission, "enter", fail)
    check(ask(service, "POST", "/separate"), INTERNAL)


def test_every_route_with_another_method_and_every_path_that_is_not(service: Running) -> None:
    taken = {(method, path) for method, path in operations(service)}
    for path in sorted({path for _, path in taken}):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            if (method, path) not in taken:
                answer = service.client.request(method, path)
                assert (answer.status_code, answer.json()["type"]) == (405, "/problems/method-not-allowed")
                assert answer.headers["content-type"] == "application/problem+json"
    for path in ("/", "/nowhere", "/separate/", "/v1", f"/{_ECHO}"):
        answer = service.client.get(path, follow_redirects=False)
        if answer.status_code != 200:
            assert answer.json()["type"] == "/problems/not-found" and _ECHO not in answer.text


def test_every_route_while_draining(start) -> None:
    service = start()
    admission = service_of(service).admission
    admission.leaving = admission.draining = True
    for method, path in operations(service):
        answer = ask(service, method, path)
        assert answer.headers["connection"] == "close"
        if method == "POST":
            check(answer, PROBLEMS[next(kind for kind in PROBLEMS if kind.__name__ == "Draining")], 1)
    until(lambda: service_of(service).admission.inside == 0)
