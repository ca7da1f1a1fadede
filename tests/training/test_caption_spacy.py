"""The walk over a dependency tree, on trees written by hand: no model is needed, spaCy is."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from training.caption_spacy import SpacyParser, phrases_of

INSTALLED = importlib.util.find_spec("spacy") is not None
needs_spacy = pytest.mark.skipif(not INSTALLED, reason="spaCy is not installed")


def tree(text: str) -> Any:
    """A Doc of tokens written ``word/part-of-speech/dependency/head``, the head by its position."""
    spacy = pytest.importorskip("spacy")
    rows = [token.split("/") for token in text.split()]
    words, tags, links, heads = zip(*rows, strict=True)
    return spacy.tokens.Doc(
        spacy.blank("en").vocab, words=list(words), pos=list(tags), deps=list(links), heads=[int(h) for h in heads]
    )


@needs_spacy
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ducks/NOUN/nsubj/1 quack/VERB/ROOT/1 and/CCONJ/cc/1 chirp/VERB/conj/1", ("ducks quack", "ducks chirp")),
        (
            "food/NOUN/nsubj/3 and/CCONJ/cc/0 oil/NOUN/conj/0 sizzling/VERB/ROOT/3",
            ("food sizzling", "oil sizzling"),
        ),
        (
            "a/DET/det/1 dog/NOUN/nsubj/2 barks/VERB/ROOT/2 and/CCONJ/cc/2 it/PRON/nsubj/5 growls/VERB/conj/2",
            ("a dog barks", "a dog growls"),
        ),
        (
            "a/DET/det/1 man/NOUN/nsubj/2 speaks/VERB/ROOT/2 while/SCONJ/mark/5 birds/NOUN/nsubj/5 sing/VERB/advcl/2",
            ("a man speaks", "birds sing"),
        ),
        (
            "it/PRON/nsubj/2 is/AUX/aux/2 raining/VERB/ROOT/2",
            ("it is raining",),
        ),
        (
            "a/DET/det/1 bell/NOUN/nsubj/2 rings/VERB/ROOT/2 with/ADP/prep/2 loud/ADJ/amod/5 music/NOUN/pobj/3",
            ("a bell rings", "loud music"),
        ),
    ],
)
def test_a_tree_is_read_into_phrases(text: str, expected: tuple[str, ...]) -> None:
    assert phrases_of(tree(text)) == expected


@pytest.mark.skipif(INSTALLED, reason="spaCy is installed")
def test_without_spacy_the_error_names_what_to_install() -> None:
    with pytest.raises(ValueError, match="pip install spacy"):
        SpacyParser()


@needs_spacy
def test_without_a_model_the_error_names_it() -> None:
    with pytest.raises(ValueError, match="no_such_model"):
        SpacyParser("no_such_model")
