"""Questions about the words of a caption: where its verb is, and whether two sides of a connective are one sound.

Sides are lists of lower-case words, none of them empty.
"""

from __future__ import annotations

from training.caption_grammar import (
    AUXILIARIES,
    DETERMINERS,
    EDGES,
    HANDIWORK,
    KINDS,
    NOT_PARTICIPLES,
    OPPOSITES,
    PLURAL_VERBS,
    PLURALS,
    SILENCES,
    SINGULAR_VERBS,
    SOUND_NOUNS,
    SURFACES,
)


def is_path(before: list[str], after: list[str]) -> bool:
    """A car driving over gravel: what one moves over is no second sound."""
    moved = before[-1] in PLURAL_VERBS | SINGULAR_VERBS or is_participle(before[-1])
    nouns = [word for word in after if word not in DETERMINERS]
    return moved and 0 < len(nouns) <= 2 and nouns[-1] in SURFACES and not is_participle(nouns[0])


def names_a_sound(before: list[str], after: list[str]) -> bool:
    """Whether what follows "with" sounds by itself; a tool of one's hands and a mood ("with joy") do not."""
    if any(is_participle(word) or word in SOUND_NOUNS for word in after):
        return True
    return len(after) > 1 and not is_participle(before[0]) and not HANDIWORK.intersection(before)


def is_opposite(before: list[str], after: list[str]) -> bool:
    """Whether both sides make one movement: opening and closing, over and over."""
    return any({before[-1], after[0]} == pair for pair in OPPOSITES)


def is_handling(before: list[str], after: list[str]) -> bool:
    """Two passives of one thing ("is opened and leafed through") are one handling of it."""
    passive = bool(AUXILIARIES.intersection(before)) and before[-1].endswith(("ed", "en", "n"))
    return passive and after[0].endswith(("ed", "wn", "rn"))


def is_contact(before: list[str], after: list[str]) -> bool:
    """Wares sound against each other: "forks and knives clinking" is one sound."""
    bare = len(before) <= 2 and len(after) > 1 and not is_participle(before[0])
    return bare and before[-1] in KINDS["wares"] and after[0] in KINDS["wares"]


def is_plural(noun: str) -> bool:
    """Whether a noun is a plural, by its ending or as one of the irregular."""
    return noun.endswith("s") or noun in PLURALS


def of_one_kind(left: list[str], right: list[str]) -> bool:
    """Whether two noun phrases name things of one kind, said in a way that lets them share a verb.

    A bare singular ("rooster and pig grunting") is a label of its own; articles, plurals and what is not counted share.
    """
    for kind, nouns in KINDS.items():
        if kind != "wares" and left[-1] in nouns and right[-1] in nouns:
            counted = kind != "food"
            return all(side[0] in DETERMINERS or not counted or is_plural(side[-1]) for side in (left, right)) or (
                kind == "people" and left[0] in DETERMINERS
            )
    return False


def subject_of(text: str) -> str:
    """Return the words before the first verb, or nothing when there is no verb."""
    words = text.split()
    at = verb_at([word.casefold() for word in words])
    return " ".join(words[:at]) if 0 < at < len(words) else ""


def verb_at(words: list[str]) -> int:
    """Index of the first verb, or the number of words when there is none; a noun is expected before it."""
    for index, word in enumerate(words):
        if word in AUXILIARIES or is_participle(word):
            return index
        known = word in PLURAL_VERBS or word in SINGULAR_VERBS
        # "A power drill whirs": of two in a row the second is the verb.
        compound = index + 1 < len(words) and words[index + 1] in SINGULAR_VERBS | SILENCES
        if known and index and not compound and words[index - 1] not in DETERMINERS | {"of"}:
            return index
    return len(words)


def is_participle(word: str) -> bool:
    """Whether a word is a verb in -ing, which is told by its ending."""
    return len(word) > 4 and word.endswith("ing") and word not in NOT_PARTICIPLES


def is_silence(text: str) -> bool:
    """Whether a short clause only says that a sound ends."""
    words = lowered(text)
    return words[-1] in SILENCES and len(words) < 6


def lowered(text: str) -> list[str]:
    """Return the words of a text without case and marks at their edges."""
    return [word for word in (token.strip(EDGES).casefold() for token in text.split()) if word]
