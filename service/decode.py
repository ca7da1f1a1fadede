"""From a file that anybody sent to a recording on disk, in bounded memory, trusting no header.

Frames are counted as they are decoded and decoding stops at the limit: ten minutes of silence fit into 64 kB of Vorbis,
so neither the size of a file nor what it says of itself is a bound.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from service.container import READ_HERE, Container, identify
from service.errors import (
    AudioTooLong,
    CorruptAudio,
    EmptyAudio,
    NotFinite,
    RateOutOfRange,
    TooManyChannels,
    TruncatedAudio,
    UnsupportedAudio,
)
from service.ffmpeg import Transcoder
from service.recording import BLOCK_SAMPLES, Recording

# 120 dB over full scale: far beyond it squares leave float32's range. No recorder writes it, and NaN fails it as well.
LOUDEST_SAMPLE = 1e6
_LENGTH_UNSTATED = 2**62  # libsndfile's count of frames when a FLAC header gives none


@dataclass(frozen=True)
class AudioLimits:
    """What a recording may be: the operator's limits and the model's range of sample rates in hertz."""

    min_rate: int
    max_rate: int
    max_audio_s: float
    max_channels: int
    max_decoded_bytes: int


def decode(
    file: BinaryIO, folder: Path, limits: AudioLimits, transcoder: Transcoder, check: Callable[[], None]
) -> Recording:
    """Decode ``file`` into ``folder``.

    Args:
        file: has a file descriptor; read from its start.
        folder: where the samples go.
        limits: what it may be.
        transcoder: reads the kinds that soundfile does not.
        check: called once a block; whatever it raises ends the work.

    Raises:
        AudioError: one of its kinds, by what is wrong.
    """
    container = identify(file)
    if container.needs_ffmpeg:
        path = transcoder.to_wav64(file, container, folder, limits.max_audio_s, check)
        try:
            with path.open("rb") as transcoded:
                return _decode_open(transcoded, None, folder, limits, check)
        finally:
            path.unlink()
    return _decode_open(file, container, folder, limits, check)


def _decode_open(
    file: BinaryIO, container: Container | None, folder: Path, limits: AudioLimits, check: Callable[[], None]
) -> Recording:
    file.seek(0)
    descriptor = os.dup(file.fileno())
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        sound = soundfile.SoundFile(descriptor)  # closes the descriptor, also when it fails
    except soundfile.LibsndfileError as error:
        raise UnsupportedAudio("the file is not audio that can be read here", limit=list(READ_HERE)) from error
    with sound:
        if sound.frames >= _LENGTH_UNSTATED:
            # soundfile seeks after each read, which libsndfile cannot do in a FLAC that was written into a pipe.
            sound._info.seekable = 0
        if container is not None and sound.format.removesuffix("EX") not in (container.value, "RF64"):
            raise UnsupportedAudio(
                "the file's content is not of the kind that its first bytes say", limit=list(READ_HERE)
            )
        _check_header(sound, container, limits)
        path = folder / "recording.f32"
        n_samples = _copy_samples(sound, path, limits, check)
        stated = sound.frames
    if n_samples == 0:
        raise EmptyAudio("the file has no samples", limit="at least one sample")
    if container is not None and container.states_length and n_samples < stated < _LENGTH_UNSTATED:
        raise TruncatedAudio(f"the file ends early: {stated} samples stated, {n_samples} read", limit=stated)
    return Recording(path, sound.samplerate, sound.channels, n_samples)


def _check_header(sound: soundfile.SoundFile, container: Container | None, limits: AudioLimits) -> None:
    if not limits.min_rate <= sound.samplerate <= limits.max_rate:
        raise RateOutOfRange(
            f"the sample rate must be {limits.min_rate} to {limits.max_rate} Hz",
            limit=limits.min_rate if sound.samplerate < limits.min_rate else limits.max_rate,
        )
    if sound.channels > limits.max_channels:
        raise TooManyChannels(f"at most {limits.max_channels} channels", limit=limits.max_channels)
    # A header that owns up to too much is believed, which spares decoding it.
    if container is not None and container.states_length and sound.frames < _LENGTH_UNSTATED:
        _check_length(sound.frames, sound.samplerate, sound.channels, limits)


def _check_length(n_samples: int, sample_rate: int, n_channels: int, limits: AudioLimits) -> None:
    if n_samples > limits.max_audio_s * sample_rate:
        raise AudioTooLong(f"at most {limits.max_audio_s:g} seconds of audio", limit=limits.max_audio_s)
    if n_samples * n_channels * 4 > limits.max_decoded_bytes:
        raise AudioTooLong(
            f"at most {limits.max_decoded_bytes} bytes of decoded audio (float32, all channels)",
            limit=limits.max_decoded_bytes,
        )


def _copy_samples(sound: soundfile.SoundFile, path: Path, limits: AudioLimits, check: Callable[[], None]) -> int:
    n_samples = 0
    buffer = np.empty((BLOCK_SAMPLES, sound.channels), np.float32)
    with path.open("wb") as out:
        while True:
            check()
            try:
                block = sound.read(out=buffer)
            except soundfile.LibsndfileError as error:
                raise CorruptAudio(f"the decoder stopped after {n_samples} samples", limit="a whole file") from error
            if not len(block):
                return n_samples
            n_samples += len(block)
            _check_length(n_samples, sound.samplerate, sound.channels, limits)
            if not max(block.max(), -block.min()) <= LOUDEST_SAMPLE:
                raise NotFinite(
                    f"a sample in the block that ends at {n_samples / sound.samplerate:.3f} s is not a finite number "
                    f"within {LOUDEST_SAMPLE:g} times full scale",
                    limit=LOUDEST_SAMPLE,
                )
            out.write(block.data)
