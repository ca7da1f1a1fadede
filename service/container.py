"""Which kind of file this is, by its first bytes; names and content types are the caller's word and are not read.

Only what is on the list reaches a decoder: fewer parsers, fewer holes. Inside WAV and AIFF the same goes for codecs,
since ADPCM readers are where decoders have had theirs. Both are also measured here against their own headers, because
the decoder quietly shortens a file whose data ends early.
"""

from __future__ import annotations

import enum
import os
import struct
from typing import BinaryIO

from service.errors import EmptyAudio, TruncatedAudio, UnsupportedAudio
from service.mpeg import Frame

READ_HERE = ("WAV", "FLAC", "OGG (Vorbis, Opus)", "MP3", "AIFF")

_PCM, _FLOAT, _ALAW, _ULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_AIFF_CODECS = {b"none", b"twos", b"sowt", b"in24", b"in32", b"fl32", b"fl64", b"alaw", b"ulaw"}
_LENGTH_UNKNOWN = 0xFFFF_0000  # writers into a pipe put about 4 GiB where the length should be
_MAX_CHUNKS = 1_000


class Container(enum.Enum):
    """A kind of file; the value is its name as soundfile or, for the last two, ffmpeg knows it."""

    WAV = "WAV"
    FLAC = "FLAC"
    OGG = "OGG"
    MP3 = "MP3"
    AIFF = "AIFF"
    M4A = "mov"
    WEBM = "matroska"

    @property
    def needs_ffmpeg(self) -> bool:
        """Whether soundfile cannot read it."""
        return self in (Container.M4A, Container.WEBM)

    @property
    def states_length(self) -> bool:
        """Whether the header's count of frames is exact in a file that is whole."""
        return self in (Container.WAV, Container.FLAC, Container.AIFF)


def identify(file: BinaryIO) -> Container:
    """Name the kind of ``file`` and check what its header promises; the file is left at its start.

    Raises:
        EmptyAudio: no bytes.
        UnsupportedAudio: not a kind on the list.
        TruncatedAudio: a WAV or AIFF that ends before its data does.
    """
    n_bytes = file.seek(0, os.SEEK_END)
    if n_bytes == 0:
        raise EmptyAudio("the file is empty", limit="at least one sample")
    file.seek(0)
    container = _by_magic(file.read(64))
    if container is None:
        raise UnsupportedAudio("the file is not audio of a kind that is read here", limit=list(READ_HERE))
    if container is Container.WAV:
        _check_wav(file, n_bytes)
    elif container is Container.AIFF:
        _check_aiff(file, n_bytes)
    file.seek(0)
    return container


def _by_magic(head: bytes) -> Container | None:
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return Container.WAV
    if head[:4] == b"fLaC":
        return Container.FLAC
    if head[:4] == b"OggS":
        return Container.OGG
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Container.AIFF
    if head[:3] == b"ID3" or _is_mpeg(head):
        return Container.MP3
    if head[4:8] == b"ftyp":
        return Container.M4A
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return Container.WEBM
    return None


def _is_mpeg(head: bytes) -> bool:
    frame = Frame.read(head)
    return frame is not None and frame.n_bytes > 0


def _check_wav(file: BinaryIO, n_bytes: int) -> None:
    """Walk the chunks up to the data: the codec must be listed, the data must be as long as it says."""
    file.seek(12)
    wide_length = None
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            raise TruncatedAudio("the WAV file ends before its data begins", limit="a whole file")
        name, length = header[:4], int.from_bytes(header[4:], "little")
        start = file.tell()
        if name == b"fmt ":
            _check_wav_codec(file.read(min(length, 40)))
        elif name == b"ds64":
            body = file.read(16)
            wide_length = int.from_bytes(body[8:16], "little") if len(body) == 16 else None
        elif name == b"data":
            if length == 0xFFFF_FFFF and wide_length is not None:
                length = wide_length
            elif length >= _LENGTH_UNKNOWN:
                return
            if start + length > n_bytes:
                raise TruncatedAudio(
                    f"the WAV file ends early: its header says {length} bytes of samples, {n_bytes - start} are there",
                    limit=length,
                )
            return
        file.seek(start + length + length % 2)
    raise UnsupportedAudio(f"the WAV file has more than {_MAX_CHUNKS} chunks before its data", limit=_MAX_CHUNKS)


def _check_wav_codec(body: bytes) -> None:
    if len(body) < 16:
        raise TruncatedAudio("the WAV file's format chunk is too short", limit="a whole file")
    (codec,) = struct.unpack_from("<H", body)
    if codec == _EXTENSIBLE and len(body) >= 26:
        (codec,) = struct.unpack_from("<H", body, 24)
    if codec not in (_PCM, _FLOAT, _ALAW, _ULAW):
        raise UnsupportedAudio("the WAV file's codec is not read here", limit=["PCM", "IEEE float", "A-law", "mu-law"])


def _check_aiff(file: BinaryIO, n_bytes: int) -> None:
    file.seek(12)
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            raise TruncatedAudio("the AIFF file ends before its samples begin", limit="a whole file")
        length, start = int.from_bytes(header[4:], "big"), file.tell()
        if header[:4] == b"COMM":
            _check_aiff_codec(file.read(min(length, 22)))
        if header[:4] == b"SSND":
            if start + length > n_bytes:
                raise TruncatedAudio(
                    f"the AIFF file ends early: its header says {length} bytes of samples, {n_bytes - start} are there",
                    limit=length,
                )
            return
        file.seek(start + length + length % 2)
    raise UnsupportedAudio(f"the AIFF file has more than {_MAX_CHUNKS} chunks before its samples", limit=_MAX_CHUNKS)


def _check_aiff_codec(body: bytes) -> None:
    """Refuse an AIFC whose codec is not listed; a plain AIFF names none."""
    codec = body[18:22]
    if codec and codec.lower() not in _AIFF_CODECS:
        raise UnsupportedAudio("the AIFF file's codec is not read here", limit=["PCM", "IEEE float", "A-law", "mu-law"])
