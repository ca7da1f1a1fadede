"""Frames of MPEG audio, against files of an encoder and frames made by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from service.decode import AudioLimits, decode
from service.errors import AudioTooLong
from service.mpeg import Frame, lasts_longer
from tests.service.sounds import encode, noise

# MPEG-2, layer 3, 8 kbit/s, 24 kHz, joint stereo; side information and data of zeros are silence.
SILENT = bytes([0xFF, 0xF3, 0x14, 0x44]) + bytes(20)
SILENT_S = 576 / 24_000
LIMITS = AudioLimits(8_000, 192_000, 2.0, 8, 2**32)


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_frames_of_an_encoder_follow_each_other(tmp_path: Path, sample_rate: int) -> None:
    data = encode(noise(3 * sample_rate, 2), sample_rate, "MP3")
    path = tmp_path / "a.mp3"
    for tag in (b"", b"ID3\x04\0\0\0\0\x01\x02" + bytes(130)):
        path.write_bytes(tag + data)
        with path.open("rb") as file:
            assert lasts_longer(file, 3.0)
            assert not lasts_longer(file, 3.6)
            assert file.tell() == 0


def test_what_is_no_frame_ends_the_count(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(SILENT * 50 + b"gap" + SILENT * 50)
    with path.open("rb") as file:
        assert lasts_longer(file, 49 * SILENT_S)
        assert not lasts_longer(file, 51 * SILENT_S)
    path.write_bytes(b"")
    with path.open("rb") as file:
        assert not lasts_longer(file, 0.0)


@pytest.mark.parametrize(
    "head", [b"", b"\xff\xfb\x90", b"\xff\xfb\xf0\0", b"\xff\xeb\x90\0", b"\xff\xf9\x90\0", b"RIFF"]
)
def test_no_frames(head: bytes) -> None:
    assert Frame.read(head) is None


def test_a_frame() -> None:
    assert Frame.read(b"\xff\xfb\x90\x44") == Frame(417, 1_152, 44_100)
    assert Frame.read(SILENT) == Frame(24, 576, 24_000)
    assert Frame.read(b"\xff\xfb\x00\x44") == Frame(0, 1_152, 44_100)


def test_a_guess_that_is_too_long_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """A first frame of 8 kbit/s, then 64 kbit/s: guessed to last eight times as long as it does."""
    path = tmp_path / "a.mp3"
    loud = bytes([0xFF, 0xF3, 0x84, 0x44]) + bytes(188)
    path.write_bytes(SILENT + loud * 60)
    with path.open("rb") as file, (tmp_path / "out").open("wb") as out:
        answer = decode(file, out, LIMITS)
        assert answer.n_samples / answer.sample_rate == pytest.approx(61 * SILENT_S, abs=0.1)
        with pytest.raises(AudioTooLong):
            decode(file, out, dataclasses.replace(LIMITS, max_audio_s=1.0))
