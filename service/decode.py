"""From a file that anybody sent to samples on disk, in bounded memory, trusting no header. Runs in a child process.

Frames are counted as they are decoded and decoding stops at the limit: ten minutes of silence fit into 64 kB of Vorbis,
so neither the size of a file nor what it says of itself is a bound.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from socket import socket
from typing import Any, BinaryIO

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
from service.mpeg import lasts_longer
from service.recording import BLOCK_SAMPLES

# 120 dB over full scale: far beyond it squares leave float32's range. No recorder writes it, and NaN fails it as well.
LOUDEST_SAMPLE = 1e6
_MPEG_DELAY_S = 0.5  # of what the frames hold, encoder and decoder leave out less than this at both ends
_LENGTH_UNSTATED = 2**62  # libsndfile's count of frames when a FLAC header gives none


@dataclass(frozen=True)
class AudioLimits:
    """What a recording may be: the operator's limits and the model's range of sample rates in hertz."""

    min_rate: int
    max_rate: int
    max_audio_s: float
    max_channels: int
    max_decoded_bytes: int


@dataclass(frozen=True)
class Decoded:
    """What was written: ``n_samples`` of ``n_channels`` at ``sample_rate`` hertz."""

    sample_rate: int
    n_channels: int
    n_samples: int


def decode_in_child(arguments: dict[str, Any], files: list[int], link: socket) -> dict[str, Any]:
    """The job of a child: descriptors of the upload and of the file for its samples; see :func:`decode`.

    Returns:
        The fields of :class:`Decoded`; or ``container``, one that only ffmpeg reads.
    """
    upload, recording = files
    with os.fdopen(upload, "rb") as file, os.fdopen(recording, "wb") as out:
        answer = decode(file, out, AudioLimits(**arguments["limits"]), transcoded=arguments["transcoded"])
    return {"container": answer.name} if isinstance(answer, Container) else answer.__dict__


def decode(file: BinaryIO, out: BinaryIO, limits: AudioLimits, *, transcoded: bool = False) -> Decoded | Container:
    """Decode ``file`` into ``out``: float32, interleaved.

    Args:
        file: has a file descriptor; read from its start.
        out: where the samples go.
        limits: what it may be.
        transcoded: whether ffmpeg wrote the file, in a kind that callers may not send.

    Returns:
        What was written; or the kind of the file, and nothing written, where only ffmpeg reads it.

    Raises:
        AudioError: one of its kinds, by what is wrong.
    """
    container = None if transcoded else identify(file)
    if container is not None and container.needs_ffmpeg:
        return container
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
        check_form(sound.samplerate, sound.channels, limits)
        _check_stated(sound, file, container, limits)
        n_samples = _copy_samples(sound, out, limits)
        stated = sound.frames
    if n_samples == 0:
        raise EmptyAudio("the file has no samples", limit="at least one sample")
    if container is not None and container.states_length and n_samples < stated < _LENGTH_UNSTATED:
        raise TruncatedAudio(f"the file ends early: {stated} samples stated, {n_samples} read", limit=stated)
    return Decoded(sound.samplerate, sound.channels, n_samples)


def _check_stated(sound: soundfile.SoundFile, file: BinaryIO, container: Container | None, limits: AudioLimits) -> None:
    """Believe a file that owns up to too much, which spares decoding it.

    In an MP3 without an encoder's tag libsndfile guesses the length from the first frame's bit rate, which may be ten
    times too much: there the frames are counted.
    """
    if container is None or sound.frames >= _LENGTH_UNSTATED:
        return
    try:
        check_length(sound.frames, sound.samplerate, sound.channels, limits)
    except AudioTooLong:
        bound_s = min(limits.max_audio_s, limits.max_decoded_bytes / (4 * sound.channels * sound.samplerate))
        if container is not Container.MP3 or lasts_longer(file, bound_s + _MPEG_DELAY_S):
            raise


def check_form(sample_rate: int, n_channels: int, limits: AudioLimits) -> None:
    """Raise RateOutOfRange or TooManyChannels."""
    if not limits.min_rate <= sample_rate <= limits.max_rate:
        raise RateOutOfRange(
            f"the sample rate must be {limits.min_rate} to {limits.max_rate} Hz",
            limit=limits.min_rate if sample_rate < limits.min_rate else limits.max_rate,
        )
    if n_channels > limits.max_channels:
        raise TooManyChannels(f"at most {limits.max_channels} channels", limit=limits.max_channels)


def check_length(n_samples: int, sample_rate: int, n_channels: int, limits: AudioLimits) -> None:
    """Raise AudioTooLong."""
    if n_samples > limits.max_audio_s * sample_rate:
        raise AudioTooLong(f"at most {limits.max_audio_s:g} seconds of audio", limit=limits.max_audio_s)
    if n_samples * n_channels * 4 > limits.max_decoded_bytes:
        raise AudioTooLong(
            f"at most {limits.max_decoded_bytes} bytes of decoded audio (float32, all channels)",
            limit=limits.max_decoded_bytes,
        )


def _copy_samples(sound: soundfile.SoundFile, out: BinaryIO, limits: AudioLimits) -> int:
    n_samples = 0
    buffer = np.empty((BLOCK_SAMPLES, sound.channels), np.float32)
    while True:
        try:
            block = sound.read(out=buffer)
        except soundfile.LibsndfileError as error:
            raise CorruptAudio(f"the decoder stopped after {n_samples} samples", limit="a whole file") from error
        if not len(block):
            return n_samples
        n_samples += len(block)
        check_length(n_samples, sound.samplerate, sound.channels, limits)
        if not max(block.max(), -block.min()) <= LOUDEST_SAMPLE:
            raise NotFinite(
                f"a sample in the block that ends at {n_samples / sound.samplerate:.3f} s is not a finite number "
                f"within {LOUDEST_SAMPLE:g} times full scale",
                limit=LOUDEST_SAMPLE,
            )
        out.write(block.data)
