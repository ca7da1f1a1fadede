"""Mixtures rendered to disk: sums and what is said of them. Whoever opens them cannot reach a source.

``python -m training.rendered mixtures-train-2.jsonl --out .cache/mixtures-train-2`` reads a mixture list and its pack
and writes ``mixtures.pcm`` and ``mixtures.json``; training opens these two files and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from tqdm import tqdm

from training.dataset import Pack
from training.manifest import read_mixtures
from training.mixing import limit_peak, scale_to_level


class RenderedMixtures:
    """Captioned mixtures in one int16 array, a :class:`training.recordings.Recordings`.

    Raises:
        ValueError: the folder holds no rendered mixtures, or is half written.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / "mixtures.json"
        if not index.is_file():
            raise ValueError(f"no mixtures.json in {folder}: render a list with python -m training.rendered")
        data = json.loads(index.read_text())
        self.sample_rate: int = data["sample_rate"]
        self.offsets = np.array(data["offsets"], dtype=np.int64)
        self.captions: list[str] = data["captions"]
        self.named: list[list[str]] = data["phrases"]
        self.samples = np.memmap(folder / "mixtures.pcm", dtype="<i2", mode="r")
        if len(self.samples) != self.offsets[-1]:
            raise ValueError(f"{folder}/mixtures.pcm must have {self.offsets[-1]} samples, got {len(self.samples)}")

    def __len__(self) -> int:
        return len(self.captions)

    def caption(self, index: int) -> str:
        """What is said of the mixture."""
        return self.captions[index]

    def phrases(self, index: int) -> Sequence[str]:
        """The phrases of the caption, one a sound."""
        return self.named[index]

    def n_samples(self, index: int) -> int:
        """Length in samples."""
        return int(self.offsets[index + 1] - self.offsets[index])

    def audio(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Samples of a mixture, float32 ``[T]``."""
        first, last = int(self.offsets[index]), int(self.offsets[index + 1])
        end = last if length is None else min(last, first + start + length)
        return self.samples[first + start : end].astype(np.float32) / 32768.0


class RenderedWriter:
    """Writes what :class:`RenderedMixtures` reads; the index comes last, so a half-written folder is no folder.

    A context manager: the index is written at the end, if all went well.
    """

    def __init__(self, folder: Path, sample_rate: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.sample_rate = folder, sample_rate
        self.offsets, self.captions, self.phrases = [0], list[str](), list[list[str]]()
        self.file = (folder / "mixtures.pcm").open("wb")

    def add(self, audio: np.ndarray, caption: str, phrases: Sequence[str]) -> None:
        """Append a recording, float ``[T]`` in -1..1, what is said of it and one phrase for each sound."""
        self.file.write(np.round(np.clip(audio, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
        self.offsets.append(self.offsets[-1] + len(audio))
        self.captions.append(caption)
        self.phrases.append(list(phrases))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.file.close()
        if kind is None:
            self._write_index()

    def _write_index(self) -> None:
        index = {
            "sample_rate": self.sample_rate,
            "offsets": self.offsets,
            "captions": self.captions,
            "phrases": self.phrases,
        }
        partial = self.folder / "mixtures.partial"
        partial.write_text(json.dumps(index))
        partial.replace(self.folder / "mixtures.json")


def render_list(path: Path, pack: Pack, out: Path) -> None:
    """Render a mixture list from the decoded pack.

    Raises:
        ValueError: the list names a clip that the pack lacks.
    """
    rows = {clip.path: row for row, clip in enumerate(pack.clips)}
    with RenderedWriter(out, pack.sample_rate) as writer:
        for mixture in tqdm(read_mixtures(path), desc=f"rendering {path.name}", unit="mixture", mininterval=5):
            n_samples = round(mixture.seconds * pack.sample_rate)
            sources = np.zeros((len(mixture.sources), n_samples), dtype=np.float32)
            for row, source in zip(sources, mixture.sources, strict=True):
                if source.path not in rows:
                    raise ValueError(f"{path}: mixture {mixture.id} names {source.path}, which is not in the pack")
                at, start = round(source.at * pack.sample_rate), round(source.start * pack.sample_rate)
                cut = pack.audio(rows[source.path], start, n_samples - at)
                row[at : at + len(cut)] = scale_to_level(cut, source.level_db)
            mixed, _ = limit_peak(sources)
            writer.add(mixed, mixture.caption, [source.prompt for source in mixture.sources])


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for a list that cannot be rendered."""
    parser = argparse.ArgumentParser(prog="python -m training.rendered", description=__doc__)
    parser.add_argument("list", type=Path, help="mixture list: a path, or a name in the pack's folder")
    parser.add_argument("--sounds", type=Path, default=Path("../shared/sounds"), help="the sound pack's folder")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where the pack is decoded")
    parser.add_argument("--out", type=Path, required=True, help="folder of the rendered mixtures")
    options = parser.parse_args(arguments)
    try:
        path = options.list if options.list.is_file() else options.sounds / options.list
        render_list(path, Pack.open(options.sounds, options.cache), options.out)
    except (ValueError, FileNotFoundError) as error:
        print(f"training.rendered: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
