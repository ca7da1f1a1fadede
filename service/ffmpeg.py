"""M4A and WebM, which libsndfile cannot read, through an ffmpeg process where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.container import READ_HERE, Container
from service.errors import CorruptAudio, UnsupportedAudio

_POLL_S = 0.05


@dataclass(frozen=True)
class Transcoder:
    """An ffmpeg by name or path, and the seconds it may take for one file."""

    program: str
    timeout_s: float
    max_bytes: int

    @property
    def found(self) -> bool:
        """Whether the program is there."""
        return shutil.which(self.program) is not None

    def to_wav64(
        self, file: BinaryIO, container: Container, folder: Path, max_audio_s: float, check: Callable[[], None]
    ) -> Path:
        """Decode the first audio stream of ``file`` into a Wave64 file of float32 in ``folder``.

        The demuxer is named, so that a playlist in disguise is not followed, and only files may be opened. One second
        over the limit is decoded, so that what is too long is seen to be.

        Raises:
            UnsupportedAudio: there is no ffmpeg.
            CorruptAudio: ffmpeg failed or took too long.
        """
        program = shutil.which(self.program)
        if program is None:
            raise UnsupportedAudio("M4A and WebM need ffmpeg, which this service does not have", limit=list(READ_HERE))
        source, out = folder / "upload", folder / "upload.w64"
        with source.open("wb") as copy:
            file.seek(0)
            shutil.copyfileobj(file, copy, 1024 * 1024)
        command = [
            *(program, "-nostdin", "-v", "error", "-threads", "1"),
            *("-protocol_whitelist", "file", "-f", container.value, "-i", os.fspath(source)),
            *("-map", "0:a:0", "-vn", "-sn", "-dn", "-t", str(max_audio_s + 1), "-fs", str(self.max_bytes + 1_048_576)),
            *("-c:a", "pcm_f32le", "-f", "w64", os.fspath(out)),
        ]
        try:
            self._run(command, check)
        except BaseException:
            out.unlink(missing_ok=True)
            raise
        finally:
            source.unlink()
        return out

    def _run(self, command: list[str], check: Callable[[], None]) -> None:
        deadline = time.monotonic() + self.timeout_s
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while True:
                check()
                try:
                    code = process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline:
                        raise CorruptAudio(
                            f"the file took more than {self.timeout_s:g} s to decode", limit=self.timeout_s
                        ) from None
                    continue
                if code:
                    raise CorruptAudio("ffmpeg could not decode the file", limit="a whole file")
                return
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
