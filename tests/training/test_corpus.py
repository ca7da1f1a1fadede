"""The corpus: what is held out is nowhere in it, and it is the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.corpus import (
    Corpus,
    CorpusConfig,
    build_corpus,
    fraction,
    held_out,
    normalise,
    participle,
    read_wordnet,
    split_phrases,
)

PHRASES = {f"sound {n}": (f"sound {n}", f"the sound {n}", f"a loud {n}", f"number {n} heard") for n in range(60)}
LINES = {
    "noun": [
        '00000001 05 n 02 dog 0 domestic_dog 0 000 | a barking animal; people keep it; "the dog barked"; "it ate"',
        "00000002 05 n 01 Canis 0 000 | Latin for dog",
        "00000003 06 n 01 bell 0 000 | a thing that makes a ringing sound when a dog pulls the bell",
    ],
    "verb": ['00000004 39 v 01 chime 0 000 01 + 02 00 | emit a sound; "the bell and dog chime at noon"'],
    "adj": ["00000005 00 a 01 loud(p) 0 000 | of great noise"],
    "adv": ["00000006 02 r 01 loudly 0 000 | with much noise"],
}


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    for kind, lines in LINES.items():
        licence = "  1 This software and database is being provided to you\n"
        (tmp_path / f"data.{kind}").write_text(licence + "\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def corpus(wordnet: Path) -> Corpus:
    return build_corpus(CorpusConfig(wordnet=str(wordnet), held_out=0.1), PHRASES)


def test_kept_and_held_phrases_are_disjoint_and_together_all() -> None:
    kept, held = split_phrases(PHRASES)
    every = {phrase for group in PHRASES.values() for phrase in group}
    kept_set, held_set = ({p for group in part.values() for p in group} for part in (kept, held))
    assert kept_set.isdisjoint(held_set) and kept_set | held_set == every
    assert 0.12 < len(held_set) / len(every) < 0.28
    assert all(label in kept[label] for label in PHRASES), "a label's own name is never held out"


def test_a_label_with_two_phrases_keeps_both_and_a_shared_phrase_stays() -> None:
    taken = next(phrase for phrase in (f"noise {n}" for n in range(99)) if held_out(phrase))
    kept, held = split_phrases({"one": ("one", taken), "two": ("two", taken, "second")})
    assert kept["one"] == ("one", taken) and taken in kept["two"] and "two" not in held


def test_held_out_phrases_are_nowhere_in_the_corpus(corpus: Corpus) -> None:
    _, held = split_phrases(PHRASES)
    never = {normalise(phrase) for group in held.values() for phrase in group}
    assert never and never.isdisjoint(corpus.texts) and never.isdisjoint(corpus.judge)


def test_judged_texts_are_not_learned(corpus: Corpus) -> None:
    assert corpus.judge and set(corpus.judge).isdisjoint(corpus.texts)
    assert len(set(corpus.texts)) == len(corpus.texts) == len(corpus.repeats)


def test_the_same_twice(wordnet: Path, corpus: Corpus) -> None:
    assert build_corpus(CorpusConfig(wordnet=str(wordnet), held_out=0.1), PHRASES) == corpus


def test_wordnet_lines_are_read(wordnet: Path) -> None:
    dog, canis, *_, loud, _ = read_wordnet(wordnet)
    assert dog.words == ("dog", "domestic dog") and dog.file == "05"
    assert dog.definition == "a barking animal; people keep it" and dog.examples == ("the dog barked", "it ate")
    assert canis.words == ("Canis",) and loud.words == ("loud",)


def test_words_and_examples_are_in_names_of_species_are_not(corpus: Corpus) -> None:
    everything = {*corpus.texts, *corpus.judge}
    assert {"dog", "the dog barked", "emit a sound"} <= everything and "canis" not in everything


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.noun: WordNet's text files come with"):
        list(read_wordnet(tmp_path))


@pytest.mark.parametrize(
    ("verb", "form"),
    [("bark", "barking"), ("chime", "chiming"), ("tap", "tapping"), ("see", "seeing"), ("die", "dying")],
)
def test_participle(verb: str, form: str) -> None:
    assert participle(verb) == form


def test_fraction_is_even_and_the_same_everywhere() -> None:
    values = [fraction(str(number)) for number in range(2000)]
    assert abs(sum(values) / len(values) - 0.5) < 0.03
    assert fraction("dog barking") == pytest.approx(0.6174, abs=1) and min(values) >= 0 and max(values) < 1


def test_the_pack_holds_out_a_fifth() -> None:
    path = Path(__file__).parents[3] / "shared" / "sounds" / "phrases.json"
    if not path.exists():
        pytest.skip("the sound pack is not beside the checkout")
    phrases = json.loads(path.read_text())
    kept, held = split_phrases(phrases)
    total, away = sum(map(len, phrases.values())), sum(map(len, held.values()))
    assert sum(map(len, kept.values())) + away == total
    assert 0.15 < away / total < 0.25
