"""Captions of mixtures to phrases of single sounds, by rules.

arXiv 2404.01740 takes each source's prompt from the mixture's caption; its release does so by replacing substrings in
turn. Deviation: here connectives are read left to right as whole words, each with a look at both of its sides; subjects,
verbs and pronouns are carried over, and adverbs that name no sound are dropped. No word is made up: a phrase consists of
words of its caption.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from training.caption_grammar import (
    AUXILIARIES,
    CONNECTIVES,
    DETERMINERS,
    HANDIWORK,
    KINDS,
    LEADING,
    NOT_PARTICIPLES,
    OPPOSITES,
    PLURAL_VERBS,
    POSSESSIVES,
    PREPOSITIONS,
    PRONOUNS,
    SILENCES,
    SINGULAR_VERBS,
    SOUND_NOUNS,
    SURFACES,
    TRAILING,
    WEATHER,
)

if TYPE_CHECKING:
    from torch import Tensor

    from model.embedder import Embedder

Parser = Callable[[str], Sequence[str]]
ROUNDS = 8
EDGES = ' \t\n\r\v\f,;:.!?"“”'
_FRAME = re.compile(r"\b(?:in the (?:background|distance)|nearby|at the (?:end|start|beginning))\s*$", re.IGNORECASE)
_RELATIVE = re.compile(r"\b(?:that|who|which) (?:is|are) (?=\w+ing\b)", re.IGNORECASE)
# After these a verb without a subject takes the one before; "followed by barking" does not say whose.
_CARRYING = frozenset({"and", "then", "and then", "before", "and before", "after", "and also", "and later", "but", ","})


def phrases(caption: str, parser: Parser | None = None) -> tuple[str, ...]:
    """Split a caption into its phrases, in the order of the caption, without repeats.

    Args:
        caption: any text.
        parser: what splits instead of the rules, such as :class:`training.caption_spacy.SpacyParser`.

    Returns:
        at least one phrase, none of them blank; a caption in which nothing is recognised is one phrase.

    Raises:
        ValueError: the caption is blank.
    """
    whole = " ".join(caption.split())
    if not whole:
        raise ValueError(f"a caption needs a word, got {caption!r}")
    found = tuple(parser(whole)) if parser is not None else split(whole)
    kept: dict[str, str] = {}
    for phrase in found:
        if phrase.strip():
            kept.setdefault(phrase.casefold(), phrase)
    return tuple(kept.values()) or (whole,)


def split(caption: str) -> tuple[str, ...]:
    """Apply the rules until nothing changes, so that a phrase given back is not split further."""
    current = [caption]
    for _ in range(ROUNDS):
        following = [part for phrase in current for part in _split_once(phrase)]
        if following == current:
            break
        current = following
    return tuple(current)


def keep_heard(phrases: Sequence[str], similarity: Sequence[float], threshold: float) -> tuple[str, ...]:
    """Keep the phrases whose similarity to the mixture reaches ``threshold``; the nearest always stays.

    Raises:
        ValueError: no phrase, or as many similarities as phrases are not given.
    """
    if not phrases or len(phrases) != len(similarity):
        raise ValueError(f"each phrase needs a similarity, got {len(phrases)} phrases and {len(similarity)}")
    nearest = max(range(len(phrases)), key=lambda index: similarity[index])
    return tuple(phrase for index, phrase in enumerate(phrases) if index == nearest or similarity[index] >= threshold)


def hearing(phrases: Sequence[str], waveform: Tensor, sample_rate: int, embedder: Embedder) -> list[float]:
    """Cosine of each phrase with a mixture ``[T]`` at ``sample_rate`` hertz, both as ``embedder`` has them."""
    audio = embedder.audio(waveform[None], sample_rate)[0]
    pooled = embedder.text(list(phrases))[2]
    return [float(value) for value in pooled @ audio]


def _split_once(caption: str) -> list[str]:
    pieces = _pieces(caption)
    made: list[str] = []
    subject = ""
    for number, (before, text) in enumerate(pieces):
        text = _trim(_RELATIVE.sub("", text))
        if not text:
            continue
        text = _resolve(text, before, subject, made[-1] if made else "")
        if number + 1 < len(pieces) and pieces[number + 1][0] in {"and", ",", "as well as"}:
            text = _share_verb(text, [piece for _, piece in pieces[number + 1 :]])
        subject = _subject(text) or subject
        if not _is_silence(text):
            made.append(text)
    return made or [caption]


def _pieces(caption: str) -> list[tuple[str, str]]:
    """The caption between its connectives: pairs of the connective before a piece and the piece."""
    pieces: list[tuple[str, str]] = []
    start, word = 0, ""
    for match in CONNECTIVES.finditer(caption):
        found = " ".join((match["word"] or ",").casefold().split())
        left, right = caption[start : match.start()], caption[match.end() :]
        if found == "with" or found == "over" or found == "and" or found == "as" or found == "near":
            until = CONNECTIVES.search(right)
            next_piece = right[: until.start()] if until and found != "with" else right
            if not _separates(found, left, next_piece):
                continue
        pieces.append((word, left))
        start, word = match.end(), found
    return [*pieces, (word, caption[start:])]


def _separates(word: str, left: str, right: str) -> bool:
    before, after = _lower(left), _lower(right)
    if not before or not after:
        return bool(after)
    if word == "and":
        return not (_is_opposite(before, after) or _is_handling(before, after) or _is_contact(before, after))
    if word == "over":
        moved = before[-1] in PLURAL_VERBS | SINGULAR_VERBS or _is_participle(before[-1])
        return after[0] not in {"and", "again"} and not (moved and after[-1] in SURFACES)
    if word == "with":
        return _names_a_sound(before, after, right)
    if word == "near":
        return any(_is_participle(token) for token in after)
    return not (before[-1] in {"such", "well", "same"} or after[0] in {"if", "though", "well"})


def _names_a_sound(before: list[str], after: list[str], right: str) -> bool:
    if _FRAME.search(right):
        return True
    until = CONNECTIVES.search(right)
    near = _lower(right[: until.start()]) if until else after
    if any(_is_participle(token) or token in SOUND_NOUNS for token in near):
        return True
    return len(near) > 1 and not _is_participle(before[0]) and before[0] not in HANDIWORK


def _is_opposite(before: list[str], after: list[str]) -> bool:
    return any({before[-1], after[0]} == pair for pair in OPPOSITES)


def _is_handling(before: list[str], after: list[str]) -> bool:
    """Two passives of one thing ("is opened and leafed through") are one handling of it."""
    passive = bool(AUXILIARIES.intersection(before)) and before[-1].endswith(("ed", "en", "n"))
    return passive and after[0].endswith(("ed", "wn", "rn"))


def _is_contact(before: list[str], after: list[str]) -> bool:
    """Wares sound against each other: "forks and knives clinking" is one sound."""
    return len(before) <= 2 and len(after) > 1 and before[-1] in KINDS["wares"] and after[0] in KINDS["wares"]


def _resolve(text: str, before: str, subject: str, previous: str) -> str:
    """Put back the subject that a pronoun, a relative or nothing stands for."""
    words = text.split()
    first = words[0].casefold()
    rest = [word.casefold() for word in words[1:]]
    if first in POSSESSIVES and rest:
        return " ".join(words[1:])
    if not subject:
        return text
    if before in {"who", "which"}:
        nouns = [word for word in previous.split() if word.casefold() not in DETERMINERS]
        ends_in_object = bool(nouns) and _verb_at(_lower(previous)) < len(_lower(previous)) - 1
        return f"{nouns[-1] if ends_in_object and previous.split()[-2].casefold() in DETERMINERS else subject} {text}"
    if first in PRONOUNS and rest and not WEATHER.intersection(rest):
        return f"{subject} {' '.join(words[1:])}"
    return f"{subject} {text}" if _lacks_subject(first, rest, before, subject, previous) else text


def _lacks_subject(first: str, rest: list[str], before: str, subject: str, previous: str) -> bool:
    person = bool(KINDS["people"].intersection(_lower(subject)))
    if _is_participle(first):
        if before not in _CARRYING and not (person and before in {"while", "as", "whilst"}):
            return False
        if rest and (rest[0] == "of" or rest[0] not in PREPOSITIONS and not rest[0].endswith("ly")):
            return person
        if before not in {"before", "after"} and not any(_is_participle(word) for word in _lower(previous)):
            return False
        return person or first not in HANDIWORK
    finite = any(word in PLURAL_VERBS or word in SINGULAR_VERBS for word in _lower(previous))
    if before not in _CARRYING or not finite:
        return False
    opens = first in SILENCES or first in SINGULAR_VERBS or (first in PLURAL_VERBS and len(_lower(subject)) < 6)
    return opens and not (rest and (rest[0] in PLURAL_VERBS or rest[0] in AUXILIARIES or _is_participle(rest[0])))


def _share_verb(text: str, following: Sequence[str]) -> str:
    """Give "food" of "food and oil sizzling" the verb that both share, when both are things of one kind."""
    words = _lower(text)
    if _verb_at(words) < len(words):
        return text
    for piece in following:
        tokens = piece.strip(EDGES).split()
        lowered = [token.casefold() for token in tokens]
        at = _verb_at(lowered)
        if at == 0 or not _of_one_kind(words, lowered[:at]):
            return text
        if at < len(tokens):
            return f"{text} {_trim(' '.join(tokens[at:]))}"
    return text


def _of_one_kind(left: list[str], right: list[str]) -> bool:
    """Whether two noun phrases name things of one kind, said in a way that lets them share a verb.

    A bare singular ("rooster and pig grunting") is a label of its own; articles, plurals and what is not counted share.
    """
    for kind, nouns in KINDS.items():
        if left[-1] in nouns and right[-1] in nouns:
            counted = kind != "food"
            return all(
                side[0] in DETERMINERS
                or not counted
                or side[-1].endswith("s")
                or side[-1] in {"men", "women", "people"}
                for side in (left, right)
            ) or (kind == "people" and left[0] in DETERMINERS)
    return False


def _subject(text: str) -> str:
    words = text.split()
    at = _verb_at([word.casefold() for word in words])
    return " ".join(words[:at]) if 0 < at < len(words) else ""


def _verb_at(words: list[str]) -> int:
    """Index of the first verb, or the number of words when there is none; a noun is expected before it."""
    for index, word in enumerate(words):
        if word in AUXILIARIES or _is_participle(word):
            return index
        known = word in PLURAL_VERBS or word in SINGULAR_VERBS
        if known and index and words[index - 1] not in DETERMINERS | {"of"}:
            return index
    return len(words)


def _is_participle(word: str) -> bool:
    return len(word) > 4 and word.endswith("ing") and word not in NOT_PARTICIPLES


def _is_silence(text: str) -> bool:
    words = _lower(text)
    return words[-1] in SILENCES and len(words) < 6


def _lower(text: str) -> list[str]:
    return [word for word in (token.strip(EDGES).casefold() for token in text.split()) if word]


def _trim(text: str) -> str:
    """Strip marks, openings and endings that name no sound, until nothing more comes off."""
    while True:
        shorter = text.strip(EDGES)
        opening = LEADING.match(shorter)
        shorter = shorter[opening.end() :] if opening else shorter
        shorter = TRAILING.sub("", shorter)
        if shorter == text:
            return text
        text = shorter
