"""The text the text tower learns English from: WordNet's files, phrases about sounds made from its words, the pack.

Everything is deterministic: the same WordNet and pack give the same texts in the same order. Parts are sampled by a
hash of the text and not by a generator, so that a larger corpus contains the smaller one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# WordNet's lexicographer files whose nouns can be heard, or make what is: act, animal, artifact, body, event, food,
# object, person, phenomenon, plant, substance.
AUDIBLE_NOUNS = frozenset({"04", "05", "06", "08", "11", "13", "17", "18", "19", "20", "27"})
# body, change, communication, competition, consumption, contact, motion, perception, weather.
AUDIBLE_VERBS = frozenset({"29", "30", "32", "33", "34", "35", "38", "39", "43"})
SOUND = re.compile(
    r"\b(sounds?|noises?|noisy|loud|music(al)?|instruments?|voice|sing(ing)?|cry|cries|shout|ring(ing)?|hum|buzz|engine"
    r"|vehicle|bird|machine|device|appliance|insect|dog|cat|bell|horn|drum|string|wind|rain|water|percussion|whistle)\b"
)
DOING = ("a {noun} {doing}", "{noun} {doing}", "someone {doing} a {noun}", "{doing} a {noun}", "a {doing} {noun}")
OF_NOUN = (
    "{noun}",
    "a {noun}",
    "the sound of {noun}",
    "the sound of a {noun}",
    "a recording of {noun}",
    "a {noun} playing",
    "{noun} playing notes",
    "someone plays the {noun}",
    "{noun} solo",
    "{noun} noise",
    "{noun} in the background",
    "{noun} running",
    "a loud {noun}",
    "{noun} and {other}",
    "{noun} with {other} in the background",
    "the hum of a {noun}",
    "opening a {noun}",
)
SOUND_VERBS = (
    "barking buzzing humming ringing clattering crackling whistling roaring rumbling ticking beeping chirping howling "
    "banging scraping rattling squeaking clicking splashing dripping singing crying laughing talking shouting snoring "
    "running passing closing opening falling hitting breaking moving flying playing engine starting boiling frying "
    "chopping washing sweeping clinking sliding pouring blowing growling meowing purring hissing clapping tapping"
)


@dataclass(frozen=True)
class CorpusConfig:
    """Where WordNet's ``data.*`` files lie and how many texts of each kind are taken; ``held_out`` is the share of the
    texts kept for judging."""

    wordnet: str = "/usr/share/wordnet"
    lemmas: int = 35_000
    clauses: int = 45_000
    examples: int = 20_000
    templates: int = 60_000
    held_out: float = 0.01


@dataclass(frozen=True)
class Corpus:
    """Texts to learn from, with how often each is shown an epoch, and texts to judge by, none in both."""

    texts: tuple[str, ...]
    repeats: tuple[int, ...]
    judge: tuple[str, ...]


@dataclass(frozen=True)
class Synset:
    """One line of a WordNet data file: file number, words, definition with examples."""

    file: str
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]


def fraction(text: str, salt: str = "") -> float:
    """A number in 0..1 that depends on the text alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{text}".encode()).digest()[:8]) / 2**64


def normalise(text: str) -> str:
    """What decides whether two texts are the same: lower case, single blanks."""
    return " ".join(text.lower().split())


def held_out(phrase: str, *, share: float = 0.25) -> bool:
    """Whether a phrase is kept from training, if its label can spare it; see :func:`split_phrases`."""
    return fraction(normalise(phrase), "held-out phrase") < share


def split_phrases(
    phrases: Mapping[str, Sequence[str]],
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Part the phrases of each label into those to train on and those never seen, about a fifth of all.

    A label's own name is never held out, since it is what the label is asked by, nor any phrase of a label with fewer
    than three, nor one that another label trains on.

    Returns:
        kept, held: label -> phrases; every label has kept ones, not every label has held ones.
    """
    names = {normalise(label) for label in phrases}
    spare = {
        normalise(phrase)
        for group in phrases.values()
        if len(group) >= 3
        for phrase in list(group)[1:]
        if normalise(phrase) not in names and held_out(phrase)
    }
    needed = {normalise(phrase) for group in phrases.values() if len(group) < 3 for phrase in group}
    needed |= {normalise(group[0]) for group in phrases.values()}
    spare -= needed
    kept = {label: tuple(p for p in group if normalise(p) not in spare) for label, group in phrases.items()}
    held = {label: tuple(p for p in group if normalise(p) in spare) for label, group in phrases.items()}
    return kept, {label: group for label, group in held.items() if group}


def read_wordnet(folder: Path) -> Iterator[Synset]:
    """Read ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv``.

    Raises:
        ValueError: a file is missing; the message names it.
    """
    for kind in ("noun", "verb", "adj", "adv"):
        path = folder / f"data.{kind}"
        if not path.is_file():
            raise ValueError(f"no {path}: WordNet's text files come with Debian's wordnet-base")
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("  "):
                continue  # the licence at the top
            fields, _, gloss = line.partition("|")
            columns = fields.split()
            words = columns[4 : 4 + 2 * int(columns[3], 16) : 2]
            names = tuple(re.sub(r"\([a-z]+\)$", "", word).replace("_", " ") for word in words)
            examples = tuple(re.findall(r'"([^"]{3,120})"', gloss))
            definition = re.sub(r'"[^"]*"?', "", gloss).strip(" ;\n")
            yield Synset(columns[1], names, definition, examples)


def build_corpus(config: CorpusConfig, phrases: Mapping[str, Sequence[str]]) -> Corpus:
    """Gather the corpus; ``phrases`` are the pack's, of which the held-out ones go nowhere near it.

    Raises:
        ValueError: WordNet's files are not in ``config.wordnet``.
    """
    kept, held = split_phrases(phrases)
    never = {normalise(phrase) for group in held.values() for phrase in group}
    synsets = list(read_wordnet(Path(config.wordnet)))
    gathered: dict[str, int] = {}
    for text, repeats in (
        *((phrase, 12) for group in kept.values() for phrase in group),
        *((text, 2) for text in _sample(_sound_texts(synsets), config.templates // 3)),
        *((text, 1) for text in _sample(_templates(synsets, kept), config.templates)),
        *((text, 1) for text in _sample(_lemmas(synsets), config.lemmas)),
        *((text, 1) for text in _sample(_clauses(synsets), config.clauses)),
        *((text, 1) for text in _sample((e for s in synsets for e in s.examples), config.examples)),
    ):
        text = normalise(text)
        if text and text not in never:
            gathered.setdefault(text, repeats)
    judge = {text for text, repeats in gathered.items() if repeats < 12 and fraction(text, "judge") < config.held_out}
    texts = tuple(text for text in gathered if text not in judge)
    return Corpus(texts, tuple(gathered[text] for text in texts), tuple(sorted(judge)))


def _sample(texts: Iterable[str], count: int) -> list[str]:
    """The ``count`` texts of least hash."""
    return sorted(set(texts), key=fraction)[:count]


def _lemmas(synsets: Iterable[Synset]) -> Iterator[str]:
    """Words in lower case (proper names and Latin names start with a capital) of one or two parts."""
    for synset in synsets:
        for word in synset.words:
            if word.islower() and word.count(" ") <= 1 and len(word) > 2:
                yield word


def _clauses(synsets: Iterable[Synset]) -> Iterator[str]:
    for synset in synsets:
        for clause in re.split(r"[;:]", re.sub(r"\([^)]*\)", "", synset.definition)):
            if 2 <= len(clause.split()) <= 16:
                yield clause.strip()


def _sound_texts(synsets: Iterable[Synset]) -> Iterator[str]:
    """All that synsets say whose definition speaks of sound."""
    for synset in synsets:
        if SOUND.search(synset.definition) and synset.words[0].islower():
            yield from (word for word in synset.words if word.count(" ") <= 2)
            yield from (example for example in synset.examples if len(example.split()) <= 12)
            yield from _clauses([synset])


def _templates(synsets: Sequence[Synset], phrases: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Label-like phrases of common nouns and verbs; each noun takes six shapes picked by its hash."""
    nouns = sorted(
        {w for s in synsets if s.file in AUDIBLE_NOUNS for w in s.words[:2] if w.islower() and w.count(" ") <= 1}
    )
    verbs = sorted({w for s in synsets if s.file in AUDIBLE_VERBS for w in s.words[:1] if w.isalpha() and w.islower()})
    doing, sounding = [participle(verb) for verb in verbs], SOUND_VERBS.split()
    own = sorted({normalise(phrase) for group in phrases.values() for phrase in group})
    for noun in nouns:
        for turn in range(6):
            value = int(fraction(noun, f"shape {turn}") * 2**40)
            other = own[value % len(own)] if value % 2 else nouns[value % len(nouns)]
            yield OF_NOUN[value % len(OF_NOUN)].format(noun=noun, other=other)
            verb = sounding[value % len(sounding)] if value % 3 else doing[value % len(doing)]
            yield DOING[value % len(DOING)].format(noun=noun, doing=verb)
    for first in own:
        for turn in range(4):
            value = int(fraction(first, f"pair {turn}") * 2**40)
            second = own[value % len(own)]
            yield (f"{first} and {second}", f"{first} with {second} in the background")[value % 2]


def participle(verb: str) -> str:
    """The -ing form of a verb by rule: barking, chiming, tapping; a few irregular ones come out wrong."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")):
        return verb[:-1] + "ing"
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        return verb + verb[-1] + "ing"
    return verb + "ing"
