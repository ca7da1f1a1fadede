"""How well spans say when a sound is there: ``python -m training.spans --model model/default``.

A mixture list knows where each clip was placed. Spans of the sounds that a bundle finds are held against these places:
intersection over union of the time, and how far the first span's begin is from the clip's. A clip is taken to sound
from its first sample to its last, pauses and all, so a perfect answer scores a little under 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.bundle import Bundle
from model.presence import Presence, PresenceMeter, within
from model.runtime import Runtime
from model.spectral import MaskStream
from training.dataset import Pack
from training.manifest import Mixture, read_manifest, read_mixtures
from training.mixing import render

FRAME_S = 0.01
PLACED_S = 0.1  # a clip that begins with the recording has no onset to find


@dataclass(frozen=True)
class Placed:
    """A source of a mixture: when it was placed, in seconds, and what presence says of it."""

    begin: float
    end: float
    seconds: float
    presence: Presence

    @property
    def overlap(self) -> float:
        """Intersection over union of the place and the spans."""
        places = (np.arange(round(self.seconds / FRAME_S)) + 0.5) * FRAME_S
        true = (places >= self.begin) & (places < self.end)
        said = np.zeros(len(places), bool)
        for begin, end in self.presence.spans:
            said |= (places >= begin) & (places < end)
        return float((true & said).sum() / max(1, (true | said).sum()))

    @property
    def onset_error(self) -> float | None:
        """Seconds between the clip's begin and the first span's; None where nothing was found or there is no onset."""
        if self.begin < PLACED_S or not self.presence.spans:
            return None
        return abs(self.presence.spans[0][0] - self.begin)


def hear(runtime: Runtime, waveform: np.ndarray, sample_rate: int, prompts: Sequence[str]) -> list[Presence]:
    """Presence of prompts in ``waveform [C, T]``, window by window as the service does, of an ear that hears bands."""
    embedding = runtime.embed(prompts)
    meter = PresenceMeter(runtime.bundle.signal, len(prompts), runtime.calibration)

    def mask(bands: np.ndarray) -> np.ndarray:
        masks = runtime.mask(bands, embedding)
        meter.add(bands, masks, runtime.presence(bands, embedding, masks) if bands.any() else np.zeros(len(masks)))
        return masks

    stream = MaskStream(runtime.bundle.signal, sample_rate, waveform.shape[0], len(prompts), mask)
    stream.push(waveform)
    stream.finish()
    return [within(item, waveform.shape[1] / sample_rate) for item in meter.finish()]


def placed(runtime: Runtime, line: Mixture, pack: Pack) -> list[Placed]:
    """The sources of a mixture with what is said of each."""
    seconds = {clip.path: clip.seconds for clip in pack.clips}
    waveform, _ = render(line, pack, pack.sample_rate)
    found = hear(runtime, waveform[None], pack.sample_rate, [source.prompt for source in line.sources])
    return [
        Placed(source.at, min(line.seconds, source.at + seconds[source.path] - source.start), line.seconds, item)
        for source, item in zip(line.sources, found, strict=True)
    ]


def report(rows: Sequence[Placed]) -> str:
    """The figures, as a table."""
    found = [row for row in rows if row.presence.spans]
    short = [row for row in found if row.end - row.begin < 0.8 * row.seconds]
    errors = [error for row in found if (error := row.onset_error) is not None]
    lines = [
        ("sounds, found of them", f"{len(rows)}, {len(found)}"),
        ("intersection over union, mean of those found", f"{_mean([row.overlap for row in found]):.3f}"),
        (f"of the {len(short)} that do not fill the recording", f"{_mean([row.overlap for row in short]):.3f}"),
        ("the same, had the answer been all of it", f"{_mean([_whole(row) for row in short]):.3f}"),
        (f"onset error, median of {len(errors)}", f"{_median(errors):.3f} s"),
        ("onsets within 0.1 s", f"{_mean([error <= 0.1 for error in errors]):.2f}"),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in lines)])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float("nan")


def _whole(row: Placed) -> float:
    return Placed(row.begin, row.end, row.seconds, Presence(1.0, ((0.0, row.seconds),))).overlap


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 where nothing can be measured."""
    parser = argparse.ArgumentParser(prog="python -m training.spans", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("model/default"), help="a bundle's folder")
    parser.add_argument("--list", dest="mixture_list", default="mixtures-valid-2.jsonl", help="of the pack, or a path")
    parser.add_argument("--sounds", type=Path, default=Path("../shared/sounds"), help="the sound pack's folder")
    parser.add_argument("--rate", type=int, default=32_000, help="sample rate in Hz to render at")
    parser.add_argument("--limit", type=int, default=0, help="the first so many mixtures; 0 for all")
    options = parser.parse_args(arguments)
    path = Path(options.mixture_list)
    try:
        lines = read_mixtures(path if path.is_file() else options.sounds / path)[: options.limit or None]
        nothing, offsets = np.zeros(0, np.int16), np.zeros(1, np.int64)
        pack = Pack(options.sounds, read_manifest(options.sounds), options.rate, nothing, offsets)
        runtime = Runtime(Bundle.open(options.model), threads=1)
        if runtime.audio_rate:
            raise ValueError(f"{options.model}: its ear hears waveforms, in windows of their own")
        rows = [row for line in tqdm(lines, desc="spans", unit="mixture") for row in placed(runtime, line, pack)]
    except (ValueError, OSError) as error:
        print(f"training.spans: {error}", file=sys.stderr)
        return 2
    print(report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
