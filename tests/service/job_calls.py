"""What the tests of jobs ask the service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import httpx

from service.jobs import Jobs
from tests.service.conftest import Running
from tests.service.sounds import encode, noise, silence
from tests.service.wire import service_of, until

SOUND = encode(noise(16_000))
Start = Callable[..., Running]


def windows(count: int) -> bytes:
    """A recording of about so many windows."""
    return encode(silence(count * 5 * 8_000), 8_000)


def submit(
    running: Running,
    sound: bytes = SOUND,
    prompt: str | list[str] = "dog",
    headers: Mapping[str, str] = MappingProxyType({}),
    **more: str,
) -> httpx.Response:
    return running.client.post(
        "/v1/jobs", files={"audio": ("a.wav", sound)}, data={"prompt": prompt, **more}, headers=dict(headers)
    )


def look(running: Running, path: str) -> dict[str, Any]:
    answer = running.client.get(path)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ended(running: Running, path: str) -> dict[str, Any]:
    until(lambda: look(running, path)["status"] not in ("queued", "running"))
    return look(running, path)


def jobs_of(running: Running) -> Jobs:
    jobs = service_of(running).jobs
    assert jobs is not None
    return jobs


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert answer.json()["status"] == answer.status_code
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")


def events(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    found = re.findall(r"^id: (\d+)\nevent: (\w+)\ndata: (.*)\n\n", text, re.MULTILINE)
    return [(int(number), name, json.loads(data)) for number, name, data in found]


def at_work(running: Running, path: str) -> None:
    until(lambda: look(running, path)["status"] == "running" and running.network.entered.is_set())
