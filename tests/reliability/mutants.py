"""Audio files that are almost right: seeds of every kind that is read, and mutations of them, each with a number."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.service.ogg_pages import sealed
from tests.service.sounds import encode, raw_wav

RATE = 16_000
SECONDS = 0.4
# What headers lie with: nothing, one, edges of signed and unsigned, all ones.
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 2**63 - 1, 2**63)
_WAV_RATE, _WAV_CHANNELS, _WAV_ALIGN, _WAV_BITS = 24, 22, 32, 34
FFMPEG_KINDS = {"m4a": "aac", "webm": "libopus"}


def sound() -> np.ndarray:
    """A chord with noise. Shape: [2, T] float32."""
    clock = np.arange(int(SECONDS * RATE)) / RATE
    tones = np.stack([np.sin(2 * np.pi * (220 * (1 + channel)) * clock) for channel in range(2)])
    return (0.3 * tones + 0.02 * np.random.default_rng(1).standard_normal(tones.shape)).astype(np.float32)


def seeds() -> dict[str, bytes]:
    """Whole files, small ones; M4A and WebM only where there is an ffmpeg."""
    stereo = sound()
    files = {
        "wav": encode(stereo, RATE),
        "wav-24": encode(stereo, RATE, "WAVEX", "PCM_24"),
        "wav-float": encode(stereo, RATE, "WAV", "FLOAT"),
        "wav-ulaw": encode(stereo, RATE, "WAV", "ULAW"),
        "wav-adpcm": encode(stereo, RATE, "WAV", "IMA_ADPCM"),
        "rf64": encode(stereo, RATE, "RF64"),
        "flac": encode(stereo, RATE, "FLAC"),
        "flac-24": encode(stereo, RATE, "FLAC", "PCM_24"),
        "vorbis": encode(stereo, RATE, "OGG", "VORBIS"),
        "opus": encode(stereo, RATE, "OGG", "OPUS"),
        "mp3": encode(stereo, RATE, "MP3"),
        "aiff": encode(stereo, RATE, "AIFF"),
    }
    program = shutil.which("ffmpeg")
    if program:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "in.wav")
            source.write_bytes(files["wav"])
            for suffix, codec in FFMPEG_KINDS.items():
                target = source.with_suffix(f".{suffix}")
                subprocess.run(
                    [program, "-v", "error", "-i", source, "-c:a", codec, "-ar", "48000", "-strict", "-2", target],
                    check=True,
                )
                files[suffix] = target.read_bytes()
    return files


def mutant(files: dict[str, bytes], number: int) -> tuple[str, bytes]:
    """The mutant of a number: its seed's name, and its bytes. The same number gives the same mutant."""
    names = list(files)
    name = names[number % len(names)]
    chance = random.Random(number)
    data = bytearray(files[name])
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        chance.choice(MUTATIONS)(data, chance)
    if name in ("vorbis", "opus") and chance.random() < 0.8:
        data = _sealed_again(data)
    return name, bytes(data)


def flip_bits(data: bytearray, chance: random.Random) -> None:
    """Flip some bits anywhere."""
    for _ in range(chance.choice((1, 4, 16, 64, 256))):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_head(data: bytearray, chance: random.Random) -> None:
    """Flip some bits where headers are."""
    for _ in range(chance.choice((1, 2, 4, 8))):
        if data:
            data[chance.randrange(min(len(data), 160))] ^= 1 << chance.randrange(8)


def truncate(data: bytearray, chance: random.Random) -> None:
    """Cut the end off, seldom nearly all."""
    del data[chance.choice((chance.randrange(64), chance.randrange(len(data) + 1))) :]


def lie(data: bytearray, chance: random.Random) -> None:
    """Put an edge into a field of the head: two, four or eight bytes, either end first."""
    width = chance.choice((2, 4, 8))
    at = chance.randrange(max(1, min(len(data), 200) - width))
    data[at : at + width] = (chance.choice(EDGES) & (1 << 8 * width) - 1).to_bytes(
        width, chance.choice(("big", "little"))
    )


def lie_in_wav(data: bytearray, chance: random.Random) -> None:
    """The fields that have overflowed in decoders: channels, rate, block, bits, and the lengths after them."""
    if data[:4] not in (b"RIFF", b"RF64") or len(data) < 60:
        return lie(data, chance)
    field = chance.choice((_WAV_CHANNELS, _WAV_RATE, _WAV_ALIGN, _WAV_BITS))
    if data[:4] == b"RF64":
        field += 36  # behind its ds64
    if field % 36 == _WAV_RATE:
        struct.pack_into("<I", data, field, chance.choice((0, 1, 7_999, 192_001, 4_000_000_000, 0xFFFF_FFFF)))
    else:
        struct.pack_into("<H", data, field, chance.choice((0, 1, 255, 1_024, 0x7FFF, 0x8000, 65_535)))
    return None


def lie_of_length(data: bytearray, chance: random.Random) -> None:
    """A number of frames: 2**63 in an RF64, all of its 36 bits in a FLAC, a last page far away in an Ogg."""
    if data[:4] == b"RF64" and len(data) > 44:
        struct.pack_into("<QQQ", data, 20, *(chance.choice((0, 2**31, 2**63 - 1, 2**63, 2**64 - 1)) for _ in range(3)))
    elif data[:4] == b"fLaC" and len(data) > 26:
        data[21] |= 0x0F
        data[22:26] = chance.choice((b"\xff" * 4, bytes(4), b"\0\0\0\1"))
    elif data[:4] == b"OggS" and (at := data.rfind(b"OggS")) + 14 <= len(data):
        struct.pack_into("<q", data, at + 6, chance.choice((-1, 0, 1, 2**31, 2**62, 2**63 - 1, -(2**63))))
    else:
        lie(data, chance)


def adpcm(data: bytearray, chance: random.Random) -> None:
    """IMA ADPCM whose samples per block, times its channels and blocks, leave 32 bits (CVE-2026-37555's pattern)."""
    channels, align = chance.choice((1, 2, 255, 65_535)), chance.choice((4, 36, 2_048, 0x7FFF, 65_535))
    per_block = chance.choice((0, 1, 0x7FFF, 0x8001, 65_535))
    wav = bytearray(raw_wav(1, RATE, bytes(data[:4_096]), codec=0x11))
    layout = struct.pack("<HHIIHHHH", 0x11, channels, RATE, RATE, align, 4, 2, per_block)
    wav[16:36] = struct.pack("<I", len(layout)) + layout
    if chance.random() < 0.5:  # behind the one that our own check reads
        wav[12:12] = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, RATE, 4 * RATE, 4, 16)
    data[:] = wav


def splice(data: bytearray, chance: random.Random) -> None:
    """Repeat, drop or move a piece."""
    if len(data) < 8:
        return
    start = chance.randrange(len(data) - 4)
    piece = data[start : start + chance.choice((1, 4, 8, 64, 1_024))]
    if chance.random() < 0.5:
        del data[start : start + len(piece)]
    at = chance.randrange(len(data) + 1)
    data[at:at] = piece * chance.choice((1, 1, 2, 100))


def overwrite(data: bytearray, chance: random.Random) -> None:
    """Noise, zeros or ones over a piece."""
    if data:
        start, length = chance.randrange(len(data)), chance.choice((1, 8, 64, 512))
        fill = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
        data[start : start + length] = fill[: len(data) - start]


def _sealed_again(data: bytearray) -> bytearray:
    """An Ogg whose pages have the checksum of their bytes as they are now, or no decoder would look at them."""
    starts = [at for at in range(len(data) - 27) if data[at : at + 4] == b"OggS"] if b"OggS" in data else []
    for start in starts:
        length = 27 + data[start + 26] + sum(data[start + 27 : start + 27 + data[start + 26]])
        page = bytes(data[start : start + length])
        if len(page) >= 27:
            data[start : start + len(page)] = sealed(page)
    return data


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits,
    flip_head,
    truncate,
    lie,
    lie_in_wav,
    lie_of_length,
    adpcm,
    splice,
    overwrite,
)
