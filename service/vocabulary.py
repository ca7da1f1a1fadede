"""The phrases that suggestions are heard for unless a request brings its own: one a line, ``#`` begins a comment."""

from __future__ import annotations

from pathlib import Path

from service.ask import clean_prompt
from service.errors import InvalidField, StartError

SHIPPED = Path(__file__).with_name("vocabulary.txt")


def read_vocabulary(path: Path, max_chars: int) -> tuple[str, ...]:
    """Read a file of phrases, each once, in its order.

    Raises:
        StartError: the file cannot be read, has no phrase, or has one that no prompt may be.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"the vocabulary at {path} cannot be read") from error
    try:
        phrases = dict.fromkeys(clean_prompt(line, max_chars) for line in lines if line and not line.startswith("#"))
    except InvalidField as error:
        raise StartError(f"the vocabulary at {path} has a phrase that is no prompt: {error.detail}") from error
    if not phrases:
        raise StartError(f"the vocabulary at {path} has no phrase")
    return tuple(phrases)
