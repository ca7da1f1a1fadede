"""Writing one stem: WAV here, whatever has a codec in a child process that is fed while the network goes on.

A WAV's samples are copied as they are, after a header, from arrays that are this service's own; no byte of an upload
and no codec's state is in it. Codecs keep state, leak (libsndfile 1.2.2 leaks with every MP3) and have had holes.
"""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np

from service.child import ChildDied
from service.errors import ChildError, WinnowError
from service.formats import FORMATS, Encoding
from service.link import HEAD, read_frame
from service.nursery import Nursery
from service.sandbox import ChildLimits
from service.stem_file import StemFile, frame_type, frames_of
from service.workspace import no_room

log = logging.getLogger("winnow.encode")
_PIPE_BYTES = 1024 * 1024  # a block of stereo and more, so that feeding seldom waits
_MAX_BLOCK_BYTES = 2**30
_SPARE_BYTES = 16 * 1024 * 1024
_SLOWEST_SAMPLES = 500_000  # a second of processor time, a tenth of what MP3 and Vorbis take
_FULL_BYTES = 1024 * 1024


class _Sink(Protocol):
    """Where frames go."""

    def append(self, frames: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def abandon(self) -> None: ...


class StemWriter:
    """A file of one stem, whole once it is closed. Blocks are [C, T]; see :func:`service.stem_file.frames_of`."""

    def __init__(self, path: Path, encoding: Encoding, sink: Callable[[BinaryIO], _Sink]) -> None:
        """Begin; ``sink`` takes the frames to the open file."""
        self.path = path
        self.encoding = encoding
        self._file = path.open("w+b")
        self._closed = False
        try:
            self._sink = sink(self._file)
        except BaseException:
            self._file.close()
            raise

    def write(self, block: np.ndarray) -> None:
        """Append a block; waits when its codec is behind."""
        if block.shape[1]:
            self._sink.append(frames_of(block, self.encoding))

    def close(self) -> None:
        """Finish the file. Raises ChildError or StorageFull when it could not be written."""
        self._end(lambda: self._sink.finish())

    def abandon(self) -> None:
        """Close without finishing."""
        self._end(lambda: self._sink.abandon())

    def _end(self, end: Callable[[], None]) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            end()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


@dataclass(frozen=True)
class Encoder:
    """Opens stems' files.

    Attributes:
        nursery: where the children come from.
        child: what one may use, but for time and bytes that go with its stem's length.
        target: what a child runs; tests put in one that fails.
    """

    nursery: Nursery
    child: ChildLimits
    target: str = "service.encode:encode_in_child"

    def open(
        self,
        path: Path,
        encoding: Encoding,
        sample_rate: int,
        n_channels: int,
        n_samples: int,
        check: Callable[[], None] = lambda: None,
    ) -> StemWriter:
        """Begin a stem of ``n_samples`` at ``sample_rate`` hertz; ``check`` is called while a child is waited for.

        Raises:
            ChildError: there is no child to write it.
        """
        if encoding.format.name == "wav":
            return StemWriter(path, encoding, lambda out: StemFile(out, encoding, sample_rate, n_channels, n_samples))
        shape = (sample_rate, n_channels, n_samples)
        return StemWriter(path, encoding, lambda out: _ChildSink(self, out, encoding, shape, check))


class _ChildSink:
    """Frames to a child, through a pipe that holds a block."""

    def __init__(
        self,
        encoder: Encoder,
        out: BinaryIO,
        encoding: Encoding,
        shape: tuple[int, int, int],
        check: Callable[[], None],
    ) -> None:
        sample_rate, n_channels, n_samples = shape
        arguments = {
            "format": encoding.format.name,
            "subtype": encoding.subtype,
            "sample_rate": sample_rate,
            "n_channels": n_channels,
            "n_samples": n_samples,
        }
        n_values = n_channels * max(n_samples, encoding.format.carried_rate(sample_rate) * n_samples // sample_rate)
        limits = dataclasses.replace(
            encoder.child.with_file(4 * n_values + _SPARE_BYTES),
            cpu_s=encoder.child.cpu_s + n_values // _SLOWEST_SAMPLES,
        )
        self._out = out
        self._check = check
        reading, self._pipe = os.pipe()
        try:
            _widen(self._pipe)
            os.set_blocking(self._pipe, False)
            self._child = encoder.nursery.start(
                encoder.target, arguments, [out.fileno(), reading], limits, work="encode"
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(reading)

    def append(self, frames: np.ndarray) -> None:
        self._send(frames.data.cast("B"))

    def finish(self) -> None:
        try:
            self._send(memoryview(b""))
            self._child.moved()
            self._child.result(self._check)
        except ChildDied as error:
            raise self._error_of(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        self._child.close()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _send(self, data: memoryview) -> None:
        try:
            self._child.feed(self._pipe, memoryview(HEAD.pack(len(data))), self._check)
            self._child.feed(self._pipe, data, self._check)
        except BrokenPipeError:
            try:
                self._child.result(self._check)  # says why it does not read
            except ChildDied as error:
                raise self._error_of(error) from error
            raise ChildError("the process that writes the file stopped early") from None
        except ChildDied as error:
            raise self._error_of(error) from error

    def _error_of(self, death: ChildDied) -> WinnowError:
        log.error("an encoding child died: %s", death)
        # libsndfile does not say why it could not write.
        if death.reason == "disk" or shutil.disk_usage(os.fspath(self._out.name)).free < _FULL_BYTES:
            return no_room()
        return ChildError("the process that writes the file was lost")


def _widen(pipe: int) -> None:
    """Make a pipe hold more where the system lets us."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except (AttributeError, OSError):
        return


def encode_in_child(arguments: dict[str, Any], files: list[int], link: socket) -> dict[str, Any]:
    """The job of a child: descriptors of the file and of the pipe with its frames, up to an empty message."""
    encoding = Encoding(FORMATS[arguments["format"]], arguments["subtype"])
    n_channels = arguments["n_channels"]
    out, frames = files
    with os.fdopen(out, "w+b") as file, os.fdopen(frames, "rb") as pipe:
        stem = StemFile(file, encoding, arguments["sample_rate"], n_channels, arguments["n_samples"])
        while data := read_frame(pipe, _MAX_BLOCK_BYTES):
            stem.append(np.frombuffer(data, frame_type(encoding)).reshape(-1, n_channels))
        if data is None:
            raise EOFError("the blocks ended without their end")
        stem.finish()
        return {"n_bytes": os.fstat(out).st_size}
