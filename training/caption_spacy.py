"""The caption splitter with spaCy's dependency parse in place of word lists; optional.

Deviation from arXiv 2404.01740, whose release names spaCy among its requirements and does not use it. A phrase is a
verb with its subject, objects and places, or a noun that no verb governs. Verbs joined by a conjunction share the
subject, nouns joined before a verb share the verb; clauses that hang on another (while, as, before) stand alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from training.caption_grammar import LEADING, POSSESSIVES, PRONOUNS, SILENCES, TRAILING, WEATHER

MODEL = "en_core_web_sm"
# What starts a phrase of its own below a verb or a noun, and what only links phrases.
APART = frozenset({"conj", "advcl", "relcl", "parataxis", "ccomp", "acl:relcl"})
LINKS = frozenset({"cc", "punct", "mark", "preconj"})
SUBJECTS = frozenset({"nsubj", "nsubjpass", "nsubj:pass", "expl"})


class SpacyParser:
    """Splits captions along a dependency parse; the second argument of :func:`training.captions.phrases`."""

    def __init__(self, model: str = MODEL) -> None:
        """Load a model.

        Raises:
            ValueError: spaCy or the model is not installed; the message names what to install.
        """
        try:
            spacy = importlib.import_module("spacy")
        except ImportError as error:
            raise ValueError("the spaCy parser needs spaCy: pip install spacy") from error
        try:
            self.pipeline = spacy.load(model)
        except OSError as error:
            raise ValueError(f"spaCy has no model {model!r}: python -m spacy download {model}") from error

    def __call__(self, caption: str) -> tuple[str, ...]:
        """Return the phrases of a caption."""
        return phrases_of(self.pipeline(caption))


def phrases_of(doc: Any) -> tuple[str, ...]:
    """Walk a parsed ``spacy.tokens.Doc`` and return its phrases in order; empty when it names no sound."""
    found: list[str] = []
    subject: list[Any] = []
    for head in doc:
        if not _is_head(head):
            continue
        own = [child for child in head.children if child.dep_ in SUBJECTS]
        if own and own[0].text.casefold() not in PRONOUNS:
            subject = _subtree(own[0])
        for words in _readings(head, own, subject):
            phrase = _plain(words)
            if phrase and phrase.split()[-1].casefold() not in SILENCES:
                found.append(phrase)
    return tuple(dict.fromkeys(found))


def _is_head(token: Any) -> bool:
    """Whether a phrase hangs on this token: the root, a clause below it, or a noun that no verb governs."""
    if token.dep_ == "ROOT" or token.dep_ in APART - {"conj"}:
        return True
    if token.dep_ == "pobj":
        link = token.head
        return link.text.casefold() in {"with", "over", "by"} and (
            link.text.casefold() == "with" or link.head.text.casefold() == "followed"
        )
    # Nouns joined before a verb are read with the verb, not by themselves.
    return token.dep_ == "conj" and token.head.dep_ not in SUBJECTS and _is_head(token.head)


def _readings(head: Any, own: list[Any], subject: list[Any]) -> Iterator[list[Any]]:
    """The words of a head: once for each of its joined subjects, or with the subject carried over."""
    body = [token for token in _subtree(head) if not any(token in _subtree(one) for one in own)]
    if own and own[0].text.casefold() in PRONOUNS and not WEATHER & {token.text.casefold() for token in body}:
        yield [*subject, *body]
    elif own:
        joined = [own[0], *(token for token in own[0].subtree if token.dep_ == "conj" and token.head in own)]
        for noun in joined:
            yield [*_subtree(noun), *body]
    elif head.pos_ == "VERB" and head.dep_ in {"conj", "advcl"} and subject:
        yield [*subject, *body]
    else:
        yield body


def _subtree(head: Any) -> list[Any]:
    """Tokens below ``head`` in order, without links and without what is a phrase of its own."""
    words: list[Any] = []
    for child in [*head.lefts, head, *head.rights]:
        if child is head or child == head:
            words.append(child)
        elif child.dep_ not in LINKS and child.dep_ not in APART and not _leads_away(child):
            words.extend(_subtree(child))
    return words


def _leads_away(token: Any) -> bool:
    """Whether a preposition holds a phrase of its own ("with music playing", "followed by a bang")."""
    return any(child.dep_ == "pobj" and _is_head(child) for child in token.children)


def _plain(words: list[Any]) -> str:
    kept = [token.text for token in words if token.text.casefold() not in POSSESSIVES | {"followed"}]
    return TRAILING.sub("", LEADING.sub("", " ".join(kept))).strip(" ,.;")
