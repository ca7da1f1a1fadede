"""Write WebDataset shards of a manifest: ``python -m training.shards MANIFEST --out DIR --megabytes 500``.

Files go in as they are, not decoded. Only where a line means part of a file is that part cut out, and kept as FLAC.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import soundfile
from tqdm import tqdm

from training.recording_manifest import Recording, read_recordings
from training.recording_shards import AUDIO_KINDS, read_index


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for a manifest that cannot be packed."""
    parser = argparse.ArgumentParser(prog="python -m training.shards", description=__doc__)
    parser.add_argument("manifest", help="manifest of recordings; MANIFEST#train packs a split")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--megabytes", type=float, default=500.0, help="size that closes a shard")
    options = parser.parse_args(arguments)
    try:
        if options.megabytes <= 0:
            raise ValueError(f"--megabytes must be above 0, got {options.megabytes}")
        recordings = read_recordings(Path(options.manifest))
        paths = write_shards(recordings, options.out, round(options.megabytes * 1e6))
    except ValueError as error:
        print(f"training.shards: {error}", file=sys.stderr)
        return 2
    total = sum(path.stat().st_size for path in paths)
    print(f"{len(recordings)} recordings in {len(paths)} shards, {total / 1e6:.1f} MB: {paths[0]} to {paths[-1].name}")
    return 0


def write_shards(recordings: Sequence[Recording], out: Path, max_bytes: int) -> list[Path]:
    """Write ``shard-000000.tar`` and on, each closed when it passes ``max_bytes``, with its index beside it.

    Raises:
        ValueError: ``out`` has shards already, or a recording cannot be read; the message names it.
    """
    if any(out.glob("*.tar")):
        raise ValueError(f"{out} has shards already; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    pending = zip(_keys(recordings), recordings, strict=True)
    paths: list[Path] = []
    packed = 0
    with tqdm(total=len(recordings), desc="packing", unit="recording", mininterval=5) as bar:
        while packed < len(recordings):
            path = out / f"shard-{len(paths):06d}.tar"
            partial = path.with_suffix(".partial")
            with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
                for key, recording in pending:
                    kind, content = _audio(recording)
                    _add(tar, f"{key}.{kind}", content)
                    _add(tar, f"{key}.json", json.dumps(_said(recording), ensure_ascii=False).encode())
                    packed += 1
                    bar.update()
                    if tar.offset >= max_bytes:
                        break
            partial.replace(path)
            read_index(path)
            paths.append(path)
    return paths


def _keys(recordings: Sequence[Recording]) -> list[str]:
    """Names of members: the place in the manifest, which is unique, and the id without what a name may not have."""
    width = len(str(len(recordings)))
    names = (re.sub(r"[^A-Za-z0-9_-]+", "_", recording.id)[:60] for recording in recordings)
    return [f"{number:0{width}d}-{name}" for number, name in enumerate(names)]


def _audio(recording: Recording) -> tuple[str, bytes]:
    """Kind and bytes of a recording's audio."""
    kind = recording.path.suffix[1:].lower()
    try:
        if kind in AUDIO_KINDS and recording.start == 0.0 and recording.seconds is None:
            return kind, recording.path.read_bytes()
        info = soundfile.info(recording.path)
        frames = -1 if recording.seconds is None else round(recording.seconds * info.samplerate)
        first = min(info.frames, round(recording.start * info.samplerate))
        subtype = "PCM_24" if info.subtype not in ("PCM_16", "PCM_U8", "PCM_S8") else "PCM_16"
        audio, rate = soundfile.read(recording.path, start=first, frames=frames, dtype="float64", always_2d=True)
        if not len(audio):
            raise ValueError(f"nothing of {recording.path} is left after {recording.start} s")
        buffer = io.BytesIO()
        soundfile.write(buffer, audio, rate, format="FLAC", subtype=subtype)
        return "flac", buffer.getvalue()
    except (OSError, soundfile.LibsndfileError) as error:
        raise ValueError(f"cannot read {recording.path}: {error}") from error


def _said(recording: Recording) -> dict[str, object]:
    said = {
        "id": recording.id,
        "caption": recording.caption,
        "phrases": list(recording.phrases),
        "source": recording.source,
        "split": recording.split,
        "licence": recording.licence,
    }
    return {name: value for name, value in said.items() if value}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a member that says nothing of who wrote it or when: the same manifest gives the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    sys.exit(main())
