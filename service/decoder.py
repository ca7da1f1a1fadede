"""Decoding somebody's file, seen from the service: a child process for each, and an error for each way it can end."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from service.child import ChildDied
from service.container import READ_HERE
from service.decode import AudioLimits, check_form, check_length
from service.errors import AudioTooLong, ChildError, CorruptAudio, UnsupportedAudio, WinnowError
from service.ffmpeg import DEMUXERS
from service.nursery import Nursery
from service.recording import Recording
from service.sandbox import ChildLimits
from service.workspace import no_room

log = logging.getLogger("winnow.decoder")
_SPARE_BYTES = 16 * 1024 * 1024
_TRIES = 2


@dataclass(frozen=True)
class Decoder:
    """Decodes files in children.

    Attributes:
        nursery: where the children come from.
        limits: what a recording may be.
        child: what a child may use.
        ffmpeg: name or path of the program for M4A and WebM.
        target: what a child runs; tests put in one that fails.
    """

    nursery: Nursery
    limits: AudioLimits
    child: ChildLimits
    ffmpeg: str = "ffmpeg"
    target: str = "service.decode:decode_in_child"

    @property
    def kinds(self) -> list[str]:
        """The kinds of file that are read."""
        return [*READ_HERE, *(["M4A", "WebM"] if shutil.which(self.ffmpeg) else [])]

    def decode(self, file: BinaryIO, folder: Path, check: Callable[[], None]) -> Recording:
        """Decode ``file`` into ``folder``; the calling thread waits, and the child is killed when it is made to leave.

        Args:
            file: has a file descriptor; read from its start.
            folder: where the samples go.
            check: called many times a second; whatever it raises ends the work.

        Raises:
            AudioError: one of its kinds, by what is wrong; also where the file crashed its child or passed its limits.
            StorageFull: the disk is full.
            ChildError: a child was lost, and the one after it.
        """
        file.seek(0)  # which also writes out what Python holds of it
        answer = self._decode(file.fileno(), folder, check, transcoded=False)
        if answer.get("container") in DEMUXERS:
            path = self._transcode(file.fileno(), answer["container"], folder, check)
            try:
                with path.open("rb") as transcoded:
                    answer = self._decode(transcoded.fileno(), folder, check, transcoded=True)
            finally:
                path.unlink()
        return self._recording(answer, folder)

    def _decode(
        self, descriptor: int, folder: Path, check: Callable[[], None], *, transcoded: bool, tries: int = _TRIES
    ) -> dict[str, Any]:
        arguments = {"limits": self.limits.__dict__, "transcoded": transcoded}
        limits = self.child.with_file(self.limits.max_decoded_bytes + _SPARE_BYTES)
        with (folder / "recording.f32").open("wb") as out:
            child = self.nursery.start(self.target, arguments, [descriptor, out.fileno()], limits, work="decode")
            try:
                return child.result(check)
            except ChildDied as error:
                if error.reason != "lost" or tries == 1:
                    raise self._error_of(error, limits) from error
            finally:
                child.close()
        return self._decode(descriptor, folder, check, transcoded=transcoded, tries=tries - 1)

    def _transcode(self, descriptor: int, container: str, folder: Path, check: Callable[[], None]) -> Path:
        """Let ffmpeg write what libsndfile reads; returns its path."""
        program = shutil.which(self.ffmpeg)
        if program is None:
            raise UnsupportedAudio("M4A and WebM need ffmpeg, which this service does not have", limit=list(READ_HERE))
        max_bytes = self.limits.max_decoded_bytes + _SPARE_BYTES
        arguments = {
            "program": os.path.abspath(program),
            "container": container,
            "max_audio_s": self.limits.max_audio_s,
            "max_bytes": max_bytes,
        }
        path = folder / "upload.rf64"
        try:
            with path.open("wb") as out:
                child = self.nursery.start(
                    "service.ffmpeg:become_ffmpeg",
                    arguments,
                    [descriptor, out.fileno()],
                    self.child.with_file(max_bytes + _SPARE_BYTES),
                    work="ffmpeg",
                    may_exec=True,
                )
                try:
                    if child.exit_code(check):
                        raise CorruptAudio("ffmpeg could not decode the file", limit="a whole file")
                except ChildDied as error:
                    raise self._error_of(error, self.child) from error
                finally:
                    child.close()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _error_of(self, death: ChildDied, limits: ChildLimits) -> WinnowError:
        """What the caller is told of a child that gave no answer."""
        log.warning("a decoding child died: %s", death)
        match death.reason:
            case "crash":
                return CorruptAudio("the file makes the decoder fail", limit="a whole file")
            case "wall":
                return CorruptAudio(f"the file took more than {limits.wall_s:g} s to decode", limit=limits.wall_s)
            case "cpu":
                return CorruptAudio(
                    f"the file took more than {limits.cpu_s} s of processor time to decode", limit=limits.cpu_s
                )
            case "memory" | "files":
                return CorruptAudio("the file makes the decoder use too much memory", limit=limits.memory_bytes)
            case "size":
                bound = self.limits.max_decoded_bytes
                return AudioTooLong(f"at most {bound} bytes of decoded audio (float32, all channels)", limit=bound)
            case "disk":
                return no_room()
        return ChildError("the process that decodes the file was lost")

    def _recording(self, answer: dict[str, Any], folder: Path) -> Recording:
        """Check a child's word against the limits and the disk: what it says may come from the file."""
        path = folder / "recording.f32"
        numbers = [answer.get(name) for name in ("sample_rate", "n_channels", "n_samples")]
        if not all(type(number) is int and number > 0 for number in numbers):
            raise ChildError("the process that decodes the file gave no sensible answer")
        sample_rate, n_channels, n_samples = (int(number) for number in numbers if number is not None)
        check_form(sample_rate, n_channels, self.limits)
        check_length(n_samples, sample_rate, n_channels, self.limits)
        if path.stat().st_size != 4 * n_channels * n_samples:
            raise ChildError("the process that decodes the file gave no sensible answer")
        return Recording(path, sample_rate, n_channels, n_samples)
