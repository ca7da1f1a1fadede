"""Rows that survive a kill: one JSON line each, flushed to disk, beneath a line that says what they were made with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """Rows by id in a file; opened again under the same fingerprint it has those that were written.

    A last line cut short by a kill is dropped; a file with another fingerprint belongs to another question and is begun
    anew.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        head = json.dumps({"fingerprint": fingerprint}) + "\n"
        kept = head.encode()
        if path.is_file() and (lines := path.read_bytes().split(b"\n")[:-1]) and lines[0] + b"\n" == kept:
            for line in lines[1:]:
                row = json.loads(line)
                self.rows[row["id"]] = row
                kept += line + b"\n"
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(kept)
        partial.replace(path)
        self._file = path.open("ab")

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; it is on disk when this returns."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows[row["id"]] = row

    def close(self) -> None:
        """Close the file."""
        self._file.close()
