from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.caption_grammar import EDGES
from training.captions import hearing, keep_heard, phrases

NOUNS = ("a dog", "ducks", "the old man", "food", "a train", "forks", "wind", "an authentic bell", "it", "a woman")
VERBS = ("barks", "quack", "talking", "sizzling", "passes by", "playing", "", "stops", "is opened")
LINKS = (" and ", ", ", " while ", " as ", ", then ", " followed by ", " with ", " over ", " before ", " who ", ". ")
ENDS = ("", " in the background", " over and over", " several times", " at the end", "!")
clauses = st.builds(lambda noun, verb: f"{noun} {verb}".strip(), st.sampled_from(NOUNS), st.sampled_from(VERBS))


@st.composite
def captions(draw: st.DrawFn) -> str:
    said = draw(st.sampled_from(("", "Finally ", "At first "))) + draw(clauses)
    for _ in range(draw(st.integers(0, 5))):
        said += draw(st.sampled_from(LINKS)) + draw(clauses)
    return said + draw(st.sampled_from(ENDS))


anything = st.text(max_size=120).filter(lambda text: bool(text.strip()))


@settings(max_examples=150, deadline=None)
@given(caption=st.one_of(captions(), anything))
def test_phrases_are_words_of_their_caption_and_never_blank(caption: str) -> None:
    found = phrases(caption)
    assert found
    assert all(phrase.strip() for phrase in found)
    words = {word.strip(EDGES) for word in caption.split()}
    assert {word.strip(EDGES) for phrase in found for word in phrase.split()} <= words
    assert len({phrase.casefold() for phrase in found}) == len(found)


@settings(max_examples=150, deadline=None)
@given(caption=st.one_of(captions(), anything))
def test_a_phrase_given_back_is_one_phrase(caption: str) -> None:
    for phrase in phrases(caption):
        assert phrases(phrase) == (phrase,)


@pytest.mark.parametrize("link", [" and ", ", ", " with ", " over ", " it "])
def test_long_captions_take_no_long_time(link: str) -> None:
    started = time.perf_counter()
    found = phrases(link.join(f"dog{number} barks" for number in range(150)))
    assert time.perf_counter() - started < 5
    assert len(found) <= 150


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_a_blank_caption_is_refused(blank: str) -> None:
    with pytest.raises(ValueError, match="needs a word"):
        phrases(blank)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        # conjunctions and sequences
        ("a bell rings as rain falls, then thunder", ["a bell rings", "rain falls", "thunder"]),
        ("a horn followed by a crash", ["a horn", "a crash"]),
        ("a horn is followed by a crash", ["a horn", "a crash"]),
        ("a horn before a crash", ["a horn", "a crash"]),
        ("a horn after which a crash", ["a horn", "a crash"]),
        ("a tuba over the sound of rain", ["a tuba", "rain"]),
        ("a tuba with rain in the background", ["a tuba", "rain"]),
        ("a tuba with rain and a siren in the background", ["a tuba", "rain", "a siren"]),
        # shared subjects and verbs
        ("ducks quack and chirp", ["ducks quack", "ducks chirp"]),
        ("dog barking and growling", ["dog barking", "dog growling"]),
        ("food and oil sizzling", ["food sizzling", "oil sizzling"]),
        ("a man and a woman talk", ["a man talk", "a woman talk"]),
        ("dog barking and washing dishes", ["dog barking", "washing dishes"]),
        ("a man talks, then a screech and barking", ["a man talks", "a screech", "barking"]),
        ("cabasa and dog barking", ["cabasa", "dog barking"]),
        # pronouns and relatives
        ("a dog barks and it growls", ["a dog barks", "a dog growls"]),
        ("a dog barks and it is raining", ["a dog barks", "it is raining"]),
        ("a mother calms her baby, who cries", ["a mother calms her baby", "baby cries"]),
        # what is no sound
        ("Finally some splashes", ["some splashes"]),
        ("A bell rings over and over", ["A bell rings"]),
        ("A bell rings several times", ["A bell rings"]),
        ("music with an audience at the end", ["music", "an audience"]),
        ("a clock ticks, stops", ["a clock ticks"]),
        # conjunctions inside one sound
        ("drawer opening and closing", ["drawer opening and closing"]),
        ("forks and knives clinking", ["forks and knives clinking"]),
        ("a book is opened and leafed through", ["a book is opened and leafed through"]),
        ("sweeping with a broom with a tuba in the background", ["sweeping with a broom", "a tuba"]),
        ("a car driving over gravel", ["a car driving over gravel"]),
        ("an authentic gong and a sandpiper", ["an authentic gong", "a sandpiper"]),
        ("Ein Hund bellt – 犬が吠える", ["Ein Hund bellt – 犬が吠える"]),
    ],
)
def test_constructions(caption: str, expected: list[str]) -> None:
    assert list(phrases(caption)) == expected


def test_another_parser_takes_the_place_of_the_rules() -> None:
    assert phrases("one  two", parser=lambda text: text.split(" ")) == ("one", "two")
    assert phrases("one two", parser=lambda text: [" ", ""]) == ("one two",)


@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=6), threshold=st.floats(-1, 1))
def test_what_is_not_heard_is_dropped_but_the_nearest(values: list[float], threshold: float) -> None:
    said = [f"phrase {index}" for index in range(len(values))]
    kept = keep_heard(said, values, threshold)
    assert kept
    assert f"phrase {values.index(max(values))}" in kept
    assert Counter(kept) <= Counter(said)
    near = [phrase for phrase, value in zip(said, values, strict=True) if value >= threshold]
    assert list(kept) == near or (not near and len(kept) == 1)


def test_a_phrase_without_a_similarity_is_refused() -> None:
    with pytest.raises(ValueError, match="2 phrases and 1"):
        keep_heard(["a", "b"], [0.5], 0.0)


class Axes:
    """An embedder of two directions: phrases of rain on one, all others on the other; audio by its first sample."""

    logit_scale = torch.tensor(1.0)

    def text(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pooled = torch.tensor([[1.0, 0.0] if "rain" in prompt else [0.0, 1.0] for prompt in prompts])
        return pooled[:, None], torch.zeros(len(prompts), 1, dtype=torch.bool), pooled

    def audio(self, waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
        assert sample_rate == 8000
        return torch.stack([waveform[:, 0], 1 - waveform[:, 0]], dim=1)


def test_hearing_compares_each_phrase_with_the_mixture() -> None:
    said = ("rain", "a tuba")
    similarity = hearing(said, torch.ones(4), 8000, Axes())
    assert similarity == [1.0, 0.0]
    assert keep_heard(said, similarity, 0.5) == ("rain",)


def test_the_splitter_needs_no_torch() -> None:
    code = "import sys, training.captions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
