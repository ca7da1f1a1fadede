"""The phrases that ask how well unseen words are answered: none is the pack's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.cases import Case, Prompt, Scene, asked_by

PHRASES = Path(__file__).parents[2] / "training" / "benchmarks" / "unseen-phrases.json"
PACK = Path(__file__).parents[3] / "shared" / "sounds" / "phrases.json"


def case() -> Case:
    def load() -> Scene:
        raise AssertionError("not loaded here")

    return Case("one", (Prompt("a dog barks", "dog barking", "esc10"),), load)


def test_a_sound_is_asked_by_the_other_phrase_and_nothing_else_changes() -> None:
    (asked,) = asked_by([case()], {"dog barking": "woof"})
    assert asked.present == (Prompt("woof", "dog barking", "esc10"),)
    assert asked.id == "one"


def test_a_label_without_a_phrase_is_named() -> None:
    with pytest.raises(ValueError, match="'dog barking'"):
        asked_by([case()], {"rain": "drizzle"})


@pytest.mark.skipif(not PACK.is_file(), reason="the sound pack is not here")
def test_no_phrase_is_the_packs_own() -> None:
    known = {phrase.lower() for group in json.loads(PACK.read_text()).values() for phrase in group}
    unseen = json.loads(PHRASES.read_text())
    assert len(set(unseen.values())) == len(unseen)
    assert not known & {phrase.lower() for phrase in unseen.values()}
    assert set(unseen) <= set(json.loads(PACK.read_text()))
