"""Suggestions: a vocabulary in, the phrases that are heard out, the likeliest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.errors import StartError
from service.suggest import MOST
from service.vocabulary import SHIPPED, read_vocabulary
from tests.service.conftest import Running
from tests.service.fakes import FakeNetwork, fake_engine
from tests.service.sounds import encode, noise


class Heard(FakeNetwork):
    """Hears each phrase as surely as its number says: "sound 7" with 0.07."""

    def embed(self, prompts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens, padding, pooled = super().embed(prompts)
        pooled[:, 0] = [int(prompt.split()[-1]) / 100 if prompt[-1].isdigit() else 0.0 for prompt in prompts]
        return tokens, padding, pooled

    def presence(
        self,
        sound: np.ndarray,
        embedding: tuple[np.ndarray, np.ndarray, np.ndarray],
        masks: np.ndarray | None = None,
    ) -> np.ndarray:
        return embedding[2][:, 0].astype(float)


@pytest.fixture
def hearing(start: Callable[..., Running], tmp_path: Path) -> Iterator[Running]:
    words = tmp_path / "words.txt"
    words.write_text("# a comment\n" + "".join(f"sound {number}\n" for number in range(1, 60)))
    yield start(fake_engine(Heard()), vocabulary=words)


def suggest(service: Running, sound: np.ndarray, **fields: object) -> httpx.Response:
    return service.client.post("/v1/suggest", files={"audio": ("mix.wav", encode(sound))}, data=fields)


def test_the_likeliest_of_the_vocabulary_come_first(hearing: Running) -> None:
    answer = suggest(hearing, noise(20_000, 2)).json()
    assert [item["phrase"] for item in answer["suggestions"]] == [f"sound {number}" for number in (59, 58, 57, 56, 55)]
    assert [item["probability"] for item in answer["suggestions"]] == [0.59, 0.58, 0.57, 0.56, 0.55]
    assert (answer["presence"], answer["model_version"], answer["duration_s"]) == ("uncalibrated", "fake", 1.25)


def test_a_vocabulary_of_the_callers_own(hearing: Running) -> None:
    answer = suggest(hearing, noise(20_000), vocabulary=["sound 3", "sound 90", "sound 3", "none"], limit="2").json()
    assert [item["phrase"] for item in answer["suggestions"]] == ["sound 90", "sound 3"]


def test_the_vocabulary_is_embedded_once(hearing: Running) -> None:
    before = hearing.network.n_embeds
    first = suggest(hearing, noise(20_000)).json()
    assert hearing.network.n_embeds == before + 59
    assert suggest(hearing, noise(20_000)).json() == first
    assert hearing.network.n_embeds == before + 59


def test_in_silence_nothing_is_heard(hearing: Running) -> None:
    assert suggest(hearing, np.zeros((1, 9_000), np.float32)).json()["suggestions"] == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": str(MOST + 1)}, "limit"),
        ({"limit": "two"}, "limit"),
        ({"limit": ["1", "2"]}, "limit"),
        ({"vocabulary": ""}, "vocabulary"),
        ({"vocabulary": ["a"] * 101}, "vocabulary"),
        ({"prompt": "dog"}, "prompt"),
    ],
)
def test_what_is_refused(hearing: Running, fields: dict[str, object], field: str) -> None:
    response = suggest(hearing, noise(2_000), **fields)
    assert response.status_code == 422, response.text
    assert (response.json()["type"], response.json()["field"]) == ("/problems/invalid-field", field)


def test_without_audio_and_of_no_audio(hearing: Running) -> None:
    missing = hearing.client.post("/v1/suggest", files={"x": (None, "1")})
    assert (missing.status_code, missing.json()["type"]) == (422, "/problems/missing-field")
    text = hearing.client.post("/v1/suggest", files={"audio": ("a.txt", b"no sound")})
    assert (text.status_code, text.json()["type"]) == (415, "/problems/unsupported-audio")


def test_the_vocabulary_that_ships_is_read_and_each_phrase_is_a_prompt_of_its_own() -> None:
    phrases = read_vocabulary(SHIPPED, 256)
    assert 200 <= len(phrases) <= 400
    assert len({phrase.casefold() for phrase in phrases}) == len(phrases)


@pytest.mark.parametrize("content", [b"", b"# nothing\n\n", b"a\x07b\n", b"\xff\xfe", b"x" * 300])
def test_a_vocabulary_that_is_none_stops_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(StartError, match=r"words\.txt"):
        read_vocabulary(path, 256)
