"""Captioned recordings in WebDataset shards: plain tar files, read at random through an index of their members.

A recording is ``KEY.flac`` (or wav, ogg, opus, mp3) and ``KEY.json`` or ``KEY.txt`` with the caption; ``KEY`` is the
name up to its first dot, as the ``webdataset`` package has it. The index is made once and kept beside the shard.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from training.recording_files import FileRecordings, Splitter, split_caption
from training.recording_manifest import Recording

AUDIO_KINDS = ("flac", "wav", "ogg", "opus", "mp3")
INDEX_FORMAT = 1


class ShardRecordings(FileRecordings):
    """The recordings of shards, in the order of the shards and within them.

    Args:
        shards: tar files, or a pattern such as ``data/train-{000000..000127}.tar`` or ``data/{a,b}.tar``.

    Raises:
        ValueError: a shard is missing or is no tar file, or has audio without caption; the message names it.
    """

    def __init__(self, shards: str | Sequence[Path], sample_rate: int, splitter: Splitter = split_caption) -> None:
        paths = [Path(name) for name in expand_braces(shards)] if isinstance(shards, str) else list(shards)
        recordings: list[Recording] = []
        self._places: list[tuple[Path, int, int]] = []
        for path in paths:
            for member in read_index(path):
                self._places.append((path, member["offset"], member["size"]))
                recordings.append(_recording(path, member))
        if not recordings:
            raise ValueError(f"no recording in shards {shards!r}")
        super().__init__(recordings, sample_rate, splitter)

    def _opener(self, index: int) -> Callable[[], Path | BinaryIO]:
        path, offset, size = self._places[index]

        def read() -> BinaryIO:
            with path.open("rb") as file:
                file.seek(offset)
                return io.BytesIO(file.read(size))

        return read

    def _name(self, index: int) -> str:
        return f"{self._places[index][0]}: {self.recordings[index].id}"


def expand_braces(pattern: str) -> list[str]:
    """``a-{08..10}.tar`` to three names, ``{a,b}.tar`` to two, as a shell does; several braces are multiplied.

    Raises:
        ValueError: a brace is open, or its range runs backwards.
    """
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise ValueError(f"an open brace in {pattern!r}")
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if numbers is None:
        choices = match[1].split(",")
    else:
        first, last = numbers[1], numbers[2]
        if int(first) > int(last):
            raise ValueError(f"the range {match[0]} of {pattern!r} runs backwards")
        width = len(first) if first.startswith("0") else 0
        choices = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [name for choice in choices for name in expand_braces(before + choice + after)]


def read_index(shard: Path) -> list[dict[str, Any]]:
    """Members of a shard: ``key``, ``kind``, ``offset`` and ``size`` of the audio in bytes, and what is said of it.

    Kept as ``SHARD.index.json`` with the shard's size and time, and made again where those have changed; a folder that
    cannot be written to is read without.

    Raises:
        ValueError: the shard is missing or no plain tar file, or audio in it has no caption.
    """
    if not shard.is_file():
        raise ValueError(f"no shard {shard}")
    state = shard.stat()
    stamp = {"format": INDEX_FORMAT, "bytes": state.st_size, "modified_ns": state.st_mtime_ns}
    path = shard.with_name(shard.name + ".index.json")
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if {key: known[key] for key in stamp} == stamp:
            members: list[dict[str, Any]] = known["members"]
            return members
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or not ours: made anew below
    members = list(_scan(shard))
    try:
        partial = path.with_name(f"{path.name}.{os.getpid()}")  # several processes may index one shard at once
        partial.write_text(json.dumps({**stamp, "members": members}), encoding="utf-8")
        partial.replace(path)
    except OSError:
        pass  # a read-only folder: the scan is repeated next time
    return members


def _scan(shard: Path) -> Iterator[dict[str, Any]]:
    audio: dict[str, dict[str, Any]] = {}
    said: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, kind = name.partition(".")
                key, kind = f"{folder}/{stem}" if folder else stem, kind.lower()
                if not member.isfile() or not stem:
                    continue
                if kind in AUDIO_KINDS:
                    audio[key] = {"key": key, "kind": kind, "offset": member.offset_data, "size": member.size}
                elif kind in ("json", "txt"):
                    content = tar.extractfile(member)
                    assert content is not None  # a plain file has content
                    said[key] = {**_said(shard, key, kind, content.read()), **said.get(key, {})}
    except tarfile.TarError as error:
        raise ValueError(f"{shard}: not a plain tar file: {error}") from error
    for key, place in audio.items():
        if "caption" not in said.get(key, {}):
            raise ValueError(f"{shard}: {key}.{place['kind']} has no caption: neither {key}.json nor {key}.txt tells")
        yield {**place, **said[key]}


def _said(shard: Path, key: str, kind: str, content: bytes) -> dict[str, Any]:
    """What a recording's JSON or text says of it, of which only the manifest's fields are kept."""
    try:
        data = json.loads(content) if kind == "json" else {"caption": content.decode("utf-8").strip()}
        if not isinstance(data, dict):
            raise ValueError(f"must be an object, got {type(data).__name__}")
        phrases = data.get("phrases", [])
        if not isinstance(phrases, list) or not all(isinstance(phrase, str) and phrase for phrase in phrases):
            raise ValueError(f"phrases must be a list of texts, got {phrases!r}")
        if not isinstance(data.get("caption", ""), str) or data.get("caption") == "":
            raise ValueError(f"caption must be a text, got {data['caption']!r}")
    except ValueError as error:
        raise ValueError(f"{shard}: {key}.{kind}: {error}") from error
    texts = ("caption", "source", "split", "licence")
    return {"phrases": phrases} | {name: str(data[name]) for name in texts if name in data}


def _recording(shard: Path, member: dict[str, Any]) -> Recording:
    return Recording(
        id=member["key"],
        path=shard,
        caption=member["caption"],
        source=member.get("source", f"shard:{shard.name}/{member['key']}"),
        phrases=tuple(member["phrases"]),
        split=member.get("split", ""),
        licence=member.get("licence", ""),
    )
