"""The words the caption splitter knows: connectives, function words, and verbs and nouns by what they can share.

Written for captions of sound in English. Function words are closed classes; verbs and nouns are open ones, so these
lists are samples of them: an unknown finite verb is read as part of a noun phrase, and a participle in *-ing* is known
by its ending. What a list decides is said where it stands.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words(
    "a an the some several many two three four five another various multiple few both this these those its their "
    "his her"
)
POSSESSIVES = _words("its their his her")
PRONOUNS = _words("it they he she")
AUXILIARIES = _words("is are was were be being been has have had")
PREPOSITIONS = _words(
    "of in on at by from into onto to through across against along around for near under inside outside off up "
    "down out away past together back over toward towards"
)
# Plurals that do not end in -s.
PLURALS = _words("men women people children cattle geese mice sheep")
# Marks at the edge of a word or a phrase.
EDGES = ' \t\n\r\v\f,;:.!?"“”'
# "it is raining" names no animal: the pronoun stays.
WEATHER = _words("raining rains snowing snows hailing hails thundering thunders drizzling drizzles")
# A clause of one of these says that a sound ends; nothing is heard of it.
SILENCES = _words("stops stop stopping pauses pause pausing ceases cease ends end quiet silence")
# Nouns and adjectives that merely end like a participle.
NOT_PARTICIPLES = _words(
    "morning evening building ceiling clothing king ring wing spring string thing something nothing anything "
    "swing sing bring wedding sewing railing lightning"
)
# Two that make one movement: "opening and closing" is one sound, "barking and growling" are two.
OPPOSITES = (
    {"opening", "closing"},
    {"opens", "closes"},
    {"open", "close"},
    {"coming", "going"},
    {"starting", "stopping"},
    {"starts", "stops"},
    {"up", "down"},
    {"back", "forth"},
    {"on", "off"},
    {"over"},
    {"again"},
    {"more"},
    {"tick", "tock"},
)

_LEMMAS = """
bark growl howl meow purr hiss quack chirp tweet sing crow cluck moo oink grunt bleat neigh whinny squeal squeak croak
buzz hum whine roar bellow caw coo hoot honk squawk screech gobble cackle snort whimper yelp pant chatter chirrup
trumpet bray snarl yowl twitter warble drone
talk speak say shout yell scream cry laugh giggle chuckle whisper mumble murmur argue chant cheer applaud clap cough
sneeze snore breathe whistle wail sob gasp groan moan sigh mutter preach announce call respond narrate converse chew
eat gulp slurp burp hiccup play perform practise practice greet soothe
run idle rev accelerate pass drive approach fly hover taxi move roll speed zoom race chug sputter rumble rattle clatter
clank clang clink clack click tick tap knock bang thud thump slam crash smash crack crackle pop snap burst explode boom
whir whirr vibrate grind scrape scratch rustle crinkle crumple rip tear beep ring ding chime toll jingle jangle tinkle
blare sound wheeze creak flap flutter gallop trot stomp walk step jump land bounce hit strike fall drip trickle flow
pour gush gurgle bubble boil sizzle fry splash spray lap swoosh whoosh blow gust drop open close slide shut flush fizz
pull back fold type start echo drill hammer saw chop cut peel sweep wash stir fill flip turn sand squirt churn
fade whizz whiz thunder rise begin continue burn swish slosh patter pelt pitter shuffle
"""
# Base forms and third persons: they mark where a subject ends and which words can open a clause without one.
PLURAL_VERBS = _words(_LEMMAS)
_IES = re.compile(r"(?<![aeiou])y$")
_SIBILANT = re.compile(r"(s|sh|ch|x|z)$")


def third_person(verb: str) -> str:
    """Return the third person of a regular verb: bark -> barks, cry -> cries, hiss -> hisses."""
    if _IES.search(verb):
        return verb[:-1] + "ies"
    return verb + ("es" if _SIBILANT.search(verb) else "s")


SINGULAR_VERBS = frozenset(third_person(verb) for verb in PLURAL_VERBS) | {"goes", "does"}

# Work of hands: "a man talking and sweeping" is a man sweeping; "a dog barking and sweeping" is no dog sweeping.
HANDIWORK = _words(
    "sweeping peeling scraping frying chopping washing cleaning typing knocking chewing eating cooking stirring "
    "cutting hammering sawing drilling writing stacking rowing lighting opening turning flipping blending "
    "squeezing slicing"
)
# Nouns that can do the same thing; two of one kind before a verb share it, and wares sound against one another.
KINDS: dict[str, frozenset[str]] = {
    "people": _words(
        "man men woman women boy boys girl girls child children kid kids person people someone baby infant "
        "toddler crowd audience adult adults male female males females speaker reporter lady guy player players "
        "mother father"
    ),
    "animals": _words(
        "dog dogs puppy puppies cat cats kitten bird birds duck ducks goose geese chicken chickens hen hens "
        "rooster turkey turkeys cow cows cattle sheep goat goats lamb horse horses pig pigs frog frogs insect "
        "insects cricket crickets bee bees fly flies wasp wasps pigeon pigeons crow crows gull gulls seagulls owl "
        "wolf wolves lion monkey"
    ),
    "food": _words("food oil bacon butter meat onion onions egg eggs vegetables fat water rice sauce fish"),
    "vehicles": _words(
        "car cars truck trucks bus buses train trains motorcycle motorcycles motorbike plane planes vehicle "
        "vehicles engine engines motor motors"
    ),
    "instruments": _words(
        "piano guitar guitars violin violins cello flute trumpet trombone drum drums bass organ clarinet "
        "saxophone banjo accordion harp harmonica bagpipes oboe bassoon horns horn keyboards"
    ),
    "wares": _words(
        "fork forks knife knives spoon spoons cutlery silverware plate plates dish dishes glass glasses bottle "
        "bottles cup cups pan pans pot pots bowl bowls coins keys"
    ),
}
# Nouns of sound: "with loud clicks" names one, "with a broom" names a tool.
SOUND_NOUNS = _words(
    "sound sounds noise noises music click clicks beep beeps bark barks applause laughter speech static bang "
    "bangs thud thuds thump thumps siren sirens voice voices song songs footsteps chatter cheers wind rain "
    "thunder echo tone tones bell bells alarm horn whistle whistles squeak squeaks rustle rattle crackle crackles "
    "hiss buzz hum drums"
)
# What one runs or rolls over without its sounding.
SURFACES = _words(
    "rocks rock gravel stones ground road bridge water track tracks bumps floor grass snow leaves pebbles pavement"
)

# Said of a phrase, not part of it; stripped at either end.
LEADING = re.compile(
    r"(?:finally|eventually|suddenly|afterwards?|later|next|first|and|then|but|also|meanwhile|at first|at last|"
    r"in the (?:background|distance)|nearby|at the (?:end|start|beginning)|there (?:is|are|was|were)|we hear|"
    r"(?:can|we can) (?:be heard|hear))\b[\s,]*",
    re.IGNORECASE,
)
TRAILING = re.compile(
    r"[\s,]*\b(?:in the (?:far |near )?(?:background|distance|foreground)|nearby|close by|far away|"
    r"(?:several|many|a few|multiple|two|three|four|five) (?:more )?times|over and over(?: again)?|again and again|"
    r"repeatedly|once(?: again| more)?|twice|again|briefly|at (?:the )?(?:very )?(?:end|start|beginning|first|once)|"
    r"at the same time|simultaneously|continuously|throughout|occasionally|for a while|is heard|are heard|"
    r"can be heard|and|then)$",
    re.IGNORECASE,
)
# What stands on either side of one of these sounds by itself. Longest first; some need a look at both sides.
CONNECTIVES = re.compile(
    r"\s*(?:[,;:]\s*)?(?<![\w'’-])(?P<word>"
    r"(?:is|are|was|were) (?:then |also )?(?:followed|accompanied) by|(?:and )?(?:then )?followed (?:shortly )?by|"
    r"(?:and )?accompanied by|over the (?:sounds?|noise) of|(?:along|together) with|as well as|"
    r"(?:and )?(?:just )?(?:before|after)(?: which)?|during which|amid(?:st)?|"
    r"(?:and )?then|(?:and )?meanwhile|and (?:also|later|finally)|while|whilst|during|which (?:makes|causes)|who|which|"
    r"as|over|with|and|but|near"
    r")(?![\w'’-])\s*|\s*(?P<mark>[,;:.!?]+(?=\s|$))\s*",
    re.IGNORECASE,
)
