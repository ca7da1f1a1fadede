"""A recording whose sounds are all named: it is shared out among them, and nothing but their word decides how."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest

from service.ask import PromptLimits, read_ask
from service.job import ask_of_json, ask_to_json
from tests.service.conftest import Running
from tests.service.fakes import FakeNetwork
from tests.service.job_calls import Start, ended, submit
from tests.service.sounds import decode, encode, noise

MIXTURE = noise(30_000, 2)
SOUND = encode(MIXTURE, subtype="FLOAT")
LIMITS = PromptLimits(8, 256)


@pytest.fixture
def careful(service: Running) -> Iterator[FakeNetwork]:
    """Masks of 0.1, whatever is asked: less than there is."""
    gain, service.network.gain = service.network.gain, 0.1
    yield service.network
    service.network.gain = gain


def separate(service: Running, prompts: list[str], **fields: object) -> bytes:
    data = {"prompt": prompts, "subtype": "float32", **fields}
    response = service.client.post("/separate", files={"audio": ("mix.wav", SOUND)}, data=data)
    assert response.status_code == 200, response.text
    return response.content


def level(sound: np.ndarray) -> float:
    return float(np.linalg.norm(sound) / np.linalg.norm(MIXTURE))


def test_what_the_network_is_too_careful_to_take_is_shared_out(service: Running, careful: FakeNetwork) -> None:
    with zipfile.ZipFile(io.BytesIO(separate(service, ["dog", "cat"], exhaustive="true", output="both"))) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        dog, cat, residual = (decode(archive.read(name))[0] for name in archive.namelist()[1:])
    assert manifest["exhaustive"] is True
    assert level(dog) == pytest.approx(0.5, abs=0.02) and level(cat) == pytest.approx(0.5, abs=0.02)
    assert level(residual) < 0.02
    assert np.abs(dog + cat + residual - MIXTURE).max() < 1e-6


def test_negatives_are_among_those_named(service: Running, careful: FakeNetwork) -> None:
    stem, _ = decode(separate(service, ["dog"], negative=["cat", "rain"], exhaustive="true"))
    assert level(stem) == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("fields", [{}, {"exhaustive": "false"}, {"exhaustive": " FALSE "}])
def test_without_it_each_sound_is_taken_by_itself(
    service: Running, careful: FakeNetwork, fields: dict[str, str]
) -> None:
    content = separate(service, ["dog", "cat"], **fields)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert json.loads(archive.read("manifest.json"))["exhaustive"] is False
        dog, _ = decode(archive.read(archive.namelist()[1]))
    assert level(dog) == pytest.approx(0.1, abs=0.01)


def test_presence_is_that_of_the_sounds_asked_for_alone(service: Running) -> None:
    headers = [
        service.client.post(
            "/separate", files={"audio": ("mix.wav", SOUND)}, data={"prompt": ["dog", "nothing"], "exhaustive": value}
        ).headers["x-presence"]
        for value in ("true", "false")
    ]
    assert headers[0] == headers[1]


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"prompt": ["dog", "cat"], "exhaustive": ["yes"]}, ["true", "false"]),
        ({"prompt": ["dog", "cat"], "exhaustive": [""]}, ["true", "false"]),
        ({"prompt": ["dog", "cat"], "exhaustive": ["true", "true"]}, 1),
        ({"prompt": ["dog"], "exhaustive": ["true"]}, 2),
    ],
)
def test_what_it_may_not_be_is_refused_with_the_limit(
    service: Running, fields: dict[str, list[str]], limit: object
) -> None:
    response = service.client.post("/separate", files={"audio": ("mix.wav", SOUND)}, data=fields)
    problem = response.json()
    assert (response.status_code, problem["type"], problem["field"]) == (422, "/problems/invalid-field", "exhaustive")
    assert problem["limit"] == limit


def test_a_job_keeps_it_and_one_of_an_earlier_version_has_none() -> None:
    ask = read_ask({"prompt": ["dog", "cat"], "exhaustive": ["true"]}, None, LIMITS)
    record = json.loads(json.dumps(ask_to_json(ask)))
    assert ask.exhaustive and ask_of_json(record) == ask
    del record["exhaustive"]
    assert not ask_of_json(record).exhaustive


def test_a_job_shares_out_too(start: Start) -> None:
    running = start()
    running.network.gain = 0.1
    path = submit(running, SOUND, ["dog", "cat"], exhaustive="true", subtype="float32").headers["location"]
    with zipfile.ZipFile(io.BytesIO(running.client.get(ended(running, path)["result"]).content)) as archive:
        assert level(decode(archive.read(archive.namelist()[1]))[0]) == pytest.approx(0.5, abs=0.02)
