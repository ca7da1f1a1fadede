"""Negative prompts: what is named as unwanted is lowered in every stem, and nothing else is."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from tests.service.conftest import Running
from tests.service.fakes import FakeNetwork
from tests.service.sounds import decode, encode, noise


def separate(service: Running, sound: bytes, prompts: list[str], negatives: list[str], **fields: str) -> bytes:
    data = {"prompt": prompts, "negative": negatives, "subtype": "float32", **fields}
    response = service.client.post("/separate", files={"audio": ("mix.wav", sound)}, data=data)
    assert response.status_code == 200, response.text
    return response.content


@pytest.fixture
def loud(service: Running) -> FakeNetwork:
    """Masks of 0.75: two of them claim more than there is."""
    service.network.gain = 0.75
    return service.network


@pytest.fixture(autouse=True)
def gain_back(service: Running) -> None:
    service.network.gain = 0.25


def test_a_negative_lowers_every_stem(service: Running, loud: FakeNetwork) -> None:
    sound = encode(noise(20_000, 2), subtype="FLOAT")
    before, _ = decode(separate(service, sound, ["dog"], []))
    after, _ = decode(separate(service, sound, ["dog"], ["rain"]))
    assert 0.1 < np.linalg.norm(after) / np.linalg.norm(before) < 0.95


def test_a_negative_that_the_model_hears_nowhere_changes_nothing(service: Running, loud: FakeNetwork) -> None:
    sound = encode(noise(20_000, 2), subtype="FLOAT")
    before, _ = decode(separate(service, sound, ["dog"], []))
    after, _ = decode(separate(service, sound, ["dog"], ["nothing"]))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_with_negatives_stems_and_residual_add_up(service: Running, loud: FakeNetwork) -> None:
    mixture = noise(30_000, 2)
    content = separate(
        service, encode(mixture, subtype="FLOAT"), ["dog", "cat"], ["rain", "wind"], output="both", subtype="pcm16"
    )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        parts = [decode(archive.read(name))[0] for name in archive.namelist()[1:]]
    assert manifest["negatives"] == ["rain", "wind"]
    assert [stem["prompt"] for stem in manifest["stems"]] == ["dog", "cat"] and len(parts) == 3
    assert np.abs(sum(parts) - mixture).max() <= 2**-15


def test_headers_speak_of_prompts_and_the_cache_of_negatives_too(service: Running) -> None:
    response = service.client.post(
        "/separate",
        files={"audio": ("mix.wav", encode(noise(8_000)))},
        data={"prompt": ["a bell"], "negative": ["a second bell", "a bell"]},
    )
    assert response.headers["x-presence"] == "0.900"
    assert response.headers["x-embedding-cache"] == "miss, miss, hit-local"


def test_info_says_that_presence_is_not_calibrated(service: Running) -> None:
    info = service.client.get("/v1/info").json()
    assert info["presence"] == "uncalibrated" and "negative" in info["fields"]
