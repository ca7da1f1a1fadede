"""What a request asks for: the form's fields, checked, with the field and the limit in every refusal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.errors import InvalidField, MissingField
from service.formats import Encoding, choose_encoding

OUTPUTS = ("target", "residual", "both")
FIELDS = ("audio", "prompt", "negative", "exhaustive", "output", "format", "subtype")
_FLAG = ("true", "false")
# Characters that reorder the text around them: a prompt in a log or a manifest must read as it is.
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Ask:
    """Which sounds, which of their stems, written how.

    Attributes:
        prompts: in the caller's order, normalised.
        output: ``target``, ``residual`` or ``both``.
        encoding: of every stem.
        zip_wanted: whether even a single stem goes into a zip.
        negatives: sounds that are lowered in every stem, normalised.
        exhaustive: whether prompts and negatives are all the sounds that there are.
    """

    prompts: tuple[str, ...]
    output: str
    encoding: Encoding
    zip_wanted: bool = False
    negatives: tuple[str, ...] = ()
    exhaustive: bool = False

    @property
    def wants_stems(self) -> bool:
        """Whether the named sounds are in the answer."""
        return self.output != "residual"

    @property
    def wants_residual(self) -> bool:
        """Whether what remains is in the answer."""
        return self.output != "target"

    @property
    def n_files(self) -> int:
        """Number of sounds in the answer."""
        return len(self.prompts) * self.wants_stems + self.wants_residual


@dataclass(frozen=True)
class PromptLimits:
    """How many prompts, as many negatives beside them, and how many characters each."""

    max_prompts: int
    max_chars: int


def read_ask(fields: Mapping[str, list[str]], accept: str | None, limits: PromptLimits) -> Ask:
    """Check the text fields of a form (``audio`` is not among them).

    Raises:
        MissingField: no prompt.
        InvalidField: a field that is unknown, repeated, or outside what it may be.
        NotAcceptable: no format fits the Accept header.
    """
    refuse_unknown(fields, FIELDS)
    prompts = read_phrases(fields.get("prompt", []), "prompt", limits)
    if not prompts:
        raise MissingField("name a sound", field="prompt", limit=f"1 to {limits.max_prompts} prompts")
    negatives = read_phrases(fields.get("negative", []), "negative", limits)
    exhaustive = _flag(fields, "exhaustive")
    if exhaustive and len(prompts) + len(negatives) < 2:
        raise InvalidField("one sound alone is the recording itself; name the others too", field="exhaustive", limit=2)
    output = _single(fields, "output")
    output = "target" if output is None else output
    if output not in OUTPUTS:
        raise InvalidField("unknown output", field="output", limit=list(OUTPUTS))
    encoding, zip_wanted = choose_encoding(_single(fields, "format"), _single(fields, "subtype"), accept)
    return Ask(prompts, output, encoding, zip_wanted, negatives, exhaustive)


def _single(fields: Mapping[str, list[str]], name: str) -> str | None:
    values = fields.get(name, [])
    if len(values) > 1:
        raise InvalidField(f"{name} may be given once", field=name, limit=1)
    return values[0].strip().lower() if values else None


def _flag(fields: Mapping[str, list[str]], name: str) -> bool:
    value = _single(fields, name)
    if value not in (None, *_FLAG):
        raise InvalidField(f"{name} is true or false", field=name, limit=list(_FLAG))
    return value == "true"


def refuse_unknown(fields: Iterable[str], known: tuple[str, ...]) -> None:
    """Raise InvalidField for a field that is not known."""
    for name in fields:
        if name not in known:
            # The name is the caller's input: it is shown only as far as it is a plain word.
            shown = name if name.isascii() and name.isidentifier() and len(name) <= 40 else "?"
            raise InvalidField("unknown field", field=shown, limit=list(known))


def read_phrases(values: list[str], field: str, limits: PromptLimits) -> tuple[str, ...]:
    """A field's phrases, normalised, in the caller's order.

    Raises:
        InvalidField: more than may be, or one that :func:`clean_prompt` refuses.
    """
    if len(values) > limits.max_prompts:
        raise InvalidField(f"at most {limits.max_prompts} of {field}", field=field, limit=limits.max_prompts)
    return tuple(clean_prompt(value, limits.max_chars, field) for value in values)


def clean_prompt(text: str, max_chars: int, field: str = "prompt") -> str:
    """Return the prompt in Unicode's NFC without space around it.

    Raises:
        InvalidField: empty, too long, or with control characters.
    """
    # Far beyond the limit not even normalised: that takes time, and may triple the length.
    if len(text) > 4 * max_chars:
        raise InvalidField(f"at most {max_chars} characters", field=field, limit=max_chars)
    prompt = unicodedata.normalize("NFC", text).strip()
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in prompt):
        raise InvalidField("no control characters", field=field, limit="printable characters")
    if _BIDI_CONTROLS & set(prompt):
        raise InvalidField("no characters that reorder text", field=field, limit="printable characters")
    if not prompt:
        raise InvalidField(f"a {field} needs at least one character", field=field, limit=1)
    if len(prompt) > max_chars:
        raise InvalidField(f"at most {max_chars} characters", field=field, limit=max_chars)
    return prompt
