"""What goes back: one sound as itself, or several in a zip with a manifest."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.presence import Presence
from service.ask import Ask
from service.recording import Recording
from service.timings import Timings

_MAX_NAME = 40
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: the same request gives the same bytes


@dataclass(frozen=True)
class Stem:
    """A written sound: its prompt (None for the residual), its file, how surely and when it is in the mixture."""

    prompt: str | None
    path: Path
    presence: Presence | None


@dataclass(frozen=True)
class Answer:
    """A file to send.

    Attributes:
        path: of the file.
        media_type: of its content.
        filename: a name for it, ASCII, made from the prompt.
        presence: of each prompt, in order, whatever is in the file; spans lie within the recording.
        cache_states: where each prompt's embedding came from.
        recording: the decoded input; its own file is gone.
    """

    path: Path
    media_type: str
    filename: str
    presence: list[Presence]
    cache_states: list[str]
    recording: Recording


def headers_of(answer: Answer, version: str, timings: Timings) -> dict[str, str]:
    """What HTTP's headers say of an answer of the model of that version."""
    return {
        "Server-Timing": timings.header(),
        "X-Model-Version": version,
        "X-Embedding-Cache": ", ".join(answer.cache_states),
        "X-Presence": ", ".join(f"{item.probability:.3f}" for item in answer.presence),
        "X-Audio-Duration": f"{answer.recording.duration_s:.6f}",
    }


def slug(prompt: str) -> str:
    """A prompt as part of a file name: ASCII letters and digits, underscores between."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_MAX_NAME].strip("_") or "sound"


def file_names(ask: Ask) -> list[str]:
    """Names of an ask's sounds, in order: numbered where there are several, the residual last."""
    suffix = ask.encoding.format.name
    names = []
    if ask.wants_stems:
        names = [f"{slug(prompt)}.{suffix}" for prompt in ask.prompts]
        if len(names) > 1:
            names = [f"{number}_{name}" for number, name in enumerate(names, 1)]
        elif names == [f"residual.{suffix}"]:
            names = [f"1_residual.{suffix}"]
    return [*names, f"residual.{suffix}"] if ask.wants_residual else names


def pack(stems: list[Stem], manifest: dict[str, Any], folder: Path) -> Path:
    """Put the manifest and all stems into a zip, stored and not deflated.

    A stem's own file is deleted as soon as it is in the zip, so that the disk holds each once.
    """
    path = folder / "stems.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(_entry("manifest.json"), json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        for stem in stems:
            entry = _entry(stem.path.name)
            entry.file_size = stem.path.stat().st_size
            with stem.path.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1024 * 1024)
            stem.path.unlink()
    return path


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _ZIP_TIME)
    entry.external_attr = 0o644 << 16
    return entry


def manifest_of(stems: list[Stem], recording: Recording, ask: Ask, version: str) -> dict[str, Any]:
    """What the zip's manifest says: how the sounds are written, and each with its prompt, file, presence and spans."""
    return {
        "model_version": version,
        "sample_rate": ask.encoding.format.carried_rate(recording.sample_rate),
        "channels": recording.n_channels,
        "duration_s": round(recording.duration_s, 6),
        "format": ask.encoding.format.name,
        "subtype": ask.encoding.subtype,
        "stems": [
            {
                "prompt": stem.prompt,
                "file": stem.path.name,
                "presence": stem.presence.probability,
                "spans": stem.presence.spans,
            }
            for stem in stems
            if stem.presence is not None
        ],
        "negatives": list(ask.negatives),
        "exhaustive": ask.exhaustive,
        "residual": next(({"file": stem.path.name} for stem in stems if stem.prompt is None), None),
    }
