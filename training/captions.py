"""Captions of mixtures to phrases of single sounds, by rules.

arXiv 2404.01740 takes each source's prompt from the mixture's caption; its release does so by replacing substrings in
turn. Deviation: here connectives are read left to right as whole words, each with a look at both of its sides;
subjects, verbs and pronouns are carried over, and adverbs that name no sound are dropped. No word is made up: a phrase
consists of words of its caption.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from training.caption_grammar import (
    AUXILIARIES,
    CONNECTIVES,
    DETERMINERS,
    EDGES,
    HANDIWORK,
    KINDS,
    LEADING,
    PLURAL_VERBS,
    POSSESSIVES,
    PREPOSITIONS,
    PRONOUNS,
    SILENCES,
    SINGULAR_VERBS,
    TRAILING,
    WEATHER,
)
from training.caption_words import (
    is_contact,
    is_handling,
    is_opposite,
    is_participle,
    is_path,
    is_plural,
    is_silence,
    lowered,
    names_a_sound,
    of_one_kind,
    subject_of,
    verb_at,
)

if TYPE_CHECKING:
    from torch import Tensor

    from model.embedder import Embedder

Parser = Callable[[str], Sequence[str]]
ROUNDS = 8
_FRAME = re.compile(r"\b(?:in the (?:background|distance)|nearby|at the (?:end|start|beginning))\s*$", re.IGNORECASE)
_LOOKED_AT = frozenset({"with", "over", "and", "as", "near"})
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
        subject = subject_of(text) or subject
        if not is_silence(text):
            made.append(text)
    return made or [caption]


def _pieces(caption: str) -> list[tuple[str, str]]:
    """The caption between its connectives: pairs of the connective before a piece and the piece."""
    pieces: list[tuple[str, str]] = []
    start, word, framing = 0, "", False
    for match in CONNECTIVES.finditer(caption):
        found = " ".join((match["word"] or ",").casefold().split())
        left, right = caption[start : match.start()], caption[match.end() :]
        if found in _LOOKED_AT:
            until = CONNECTIVES.search(right)
            near = right[: until.start()] if until else right
            # Of "sweeping with a broom with rain in the background" the frame belongs to one "with" alone.
            framed = found == "with" and not framing and " with " not in right and bool(_FRAME.search(right))
            if not framed and not _separates(found, left, near):
                continue
        framing = framing or found == "with"
        pieces.append((word, left))
        start, word = match.end(), found
    return [*pieces, (word, caption[start:])]


def _separates(word: str, left: str, right: str) -> bool:
    before, after = lowered(left), lowered(right)
    if not before or not after:
        return bool(after)
    if word == "and":
        return not (is_opposite(before, after) or is_handling(before, after) or is_contact(before, after))
    if word == "over":
        return after[0] not in {"and", "again"} and not is_path(before, after)
    if word == "with":
        return names_a_sound(before, after)
    if word == "near":
        return any(is_participle(token) for token in after)
    return not (before[-1] in {"such", "well", "same"} or after[0] in {"if", "though", "well"})


def _resolve(text: str, before: str, subject: str, previous: str) -> str:
    """Put back the subject that a pronoun, a relative or nothing stands for."""
    words = text.split()
    first = words[0].casefold()
    rest = [word.casefold() for word in words[1:]]
    if first in POSSESSIVES and rest:
        return " ".join(words[1:])
    if before in {"who", "which"}:
        said = previous.split()
        # "a mother calms her baby, who cries": an object right before it is what a relative stands for.
        nearest = said[-1] if len(said) > 2 and said[-2].casefold() in DETERMINERS else subject
        return f"{nearest} {text}".strip()
    if not subject:
        return text
    if first in PRONOUNS and rest and not WEATHER.intersection(rest):
        return f"{subject} {' '.join(words[1:])}"
    return f"{subject} {text}" if _lacks_subject(first, rest, before, subject, previous) else text


def _lacks_subject(first: str, rest: list[str], before: str, subject: str, previous: str) -> bool:
    if not subject_of(previous):  # "a man talks, then a screech and barking": the screech came between
        return False
    person = bool(KINDS["people"].intersection(lowered(subject)))
    if is_participle(first):
        if before not in _CARRYING and not (person and before in {"while", "as", "whilst"}):
            return False
        if rest and (rest[0] == "of" or (rest[0] not in PREPOSITIONS and not rest[0].endswith("ly"))):
            return person
        if before not in {"before", "after"} and not any(is_participle(word) for word in lowered(previous)):
            return False
        return person or first not in HANDIWORK
    finite = any(word in PLURAL_VERBS or word in SINGULAR_VERBS for word in lowered(previous))
    if before not in _CARRYING or not finite:
        return False
    opens = first in SILENCES or first in SINGULAR_VERBS or (first in PLURAL_VERBS and is_plural(lowered(subject)[-1]))
    return opens and not (rest and (rest[0] in PLURAL_VERBS or rest[0] in AUXILIARIES or is_participle(rest[0])))


def _share_verb(text: str, following: Sequence[str]) -> str:
    """Give "food" of "food and oil sizzling" the verb that both share, when both are things of one kind."""
    words = lowered(text)
    if verb_at(words) < len(words):
        return text
    for piece in following:
        tokens = piece.strip(EDGES).split()
        folded = [token.casefold() for token in tokens]
        at = verb_at(folded)
        if at == 0 or not of_one_kind(words, folded[:at]):
            return text
        if at < len(tokens):
            return f"{text} {_trim(' '.join(tokens[at:]))}"
    return text


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
