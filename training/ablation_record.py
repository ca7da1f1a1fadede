"""What an ablation's folder was made with, kept beside it, so that one folder never answers two questions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "record.json"
# Where a run is and how it is watched does not change what it learns.
UNIMPORTANT = frozenset({"out", "cache", "threads", "device", "checkpoint_every", "validate_every", "validation_limit"})


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, keys joined by dots, what is unimportant left out."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if key not in UNIMPORTANT:
            flat.update(flatten(item, f"{prefix}.{key}" if prefix else key))
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """What differs, as ``key: old -> new``; a key that one of them lacks, since configs grow, counts as its default."""
    before, after, usual = flatten(old), flatten(new), flatten(defaults)
    found = []
    for key in sorted({*before, *after}):
        one, other = (side.get(key, usual.get(key)) for side in (before, after))
        if one != other:
            found.append(f"{key}: {one!r} -> {other!r}")
    return found


def claim(folder: Path, record: dict[str, Any], defaults: dict[str, Any], *, redo: bool) -> None:
    """Make a folder for what ``record`` says, or go on with one that was made for the same.

    Raises:
        ValueError: the folder was made for something else; with ``redo`` it is emptied instead.
    """
    path = folder / NAME
    plain = json.loads(json.dumps(record))
    if path.is_file():
        changed = differences(json.loads(path.read_text()), plain, json.loads(json.dumps(defaults)))
        if not changed:
            return
        if not redo:
            raise ValueError(f"{folder} was made with another config ({'; '.join(changed[:6])}): --redo makes it again")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "record.partial"
    partial.write_text(json.dumps(plain, indent=1) + "\n")
    os.replace(partial, path)


def write_toml(values: Mapping[str, Any]) -> str:
    """Numbers, strings, lists and tables as TOML; ``None`` is left out, as TOML has no word for it."""
    return "\n".join(_lines(values, "")) + "\n"


def _lines(values: Mapping[str, Any], prefix: str) -> list[str]:
    lines = [
        f"{_quoted(key)} = {_literal(value)}"
        for key, value in values.items()
        if value is not None and not isinstance(value, Mapping)
    ]
    for key, value in values.items():
        if isinstance(value, Mapping):
            name = f"{prefix}.{_quoted(key)}" if prefix else _quoted(key)
            lines += ["", f"[{name}]", *_lines(value, name)]
    return lines


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    raise ValueError(f"TOML has no word for {value!r}")


def _quoted(text: str) -> str:
    """A basic string: JSON's, except that TOML knows no surrogate pairs and wants DEL escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
