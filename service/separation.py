"""From a file and an ask to an answer on disk: the one path that HTTP and the command line share.

Blocks go through: an hour is decoded to disk, read back a block at a time, masked, and written to its stems' files, so
that memory does not grow with length.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from model.presence import Presence, within
from model.spectral import MaskStream
from service.answer import Answer, Stem, file_names, manifest_of, pack
from service.ask import Ask
from service.backlog import Backlog, work_of
from service.call import Call
from service.decode import AudioLimits
from service.decoder import Decoder
from service.embedding import Embedding
from service.encode import Encoder
from service.engine import Engine, Listening
from service.errors import ModelError
from service.formats import ZIP_TYPE
from service.nursery import Nursery
from service.quantise import to_steps, with_residual
from service.recording import Recording
from service.sandbox import ChildLimits
from service.settings import Settings
from service.timings import Timings
from service.workspace import no_room

_SPARE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Separator:
    """An engine with the limits and tools around it."""

    engine: Engine
    nursery: Nursery
    decoder: Decoder
    encoder: Encoder
    backlog: Backlog = field(default_factory=Backlog)

    @classmethod
    def of(cls, engine: Engine, settings: Settings) -> Separator:
        """Put one together as the settings say; its owner closes it."""
        limits = AudioLimits(
            engine.signal.min_rate,
            engine.signal.max_rate,
            settings.max_audio_s,
            settings.max_channels,
            settings.max_decoded_bytes,
        )
        nursery = Nursery()
        child = ChildLimits(settings.child_memory_bytes, settings.child_cpu_s, settings.child_wall_s, 0)
        return cls(engine, nursery, Decoder(nursery, limits, child, settings.ffmpeg), Encoder(nursery, child))

    def warm_up(self) -> None:
        """Start the processes that decode and encode. Raises StartError where that cannot be."""
        self.nursery.warm_up()

    def close(self) -> None:
        """End the processes that decode and encode; the engine is its owner's."""
        self.nursery.close()

    def run(self, file: BinaryIO, ask: Ask, folder: Path, call: Call, timings: Timings | None = None) -> Answer:
        """Separate ``file`` into ``folder``.

        Args:
            file: the recording, with a file descriptor.
            ask: what to do with it.
            folder: takes all temporary files, and the answer.
            call: asked often whether this is still wanted, and told how far it is.
            timings: takes the time of each stage.

        Raises:
            WinnowError: one of its kinds.
        """
        timings = timings or Timings()
        call.timings = timings
        timings.prompts = ask.prompts + ask.negatives
        try:
            with timings.measure("decode"):
                recording = self.decoder.decode(file, folder, call.check)
            timings.audio_in_s = recording.duration_s
            ask.encoding.check_carries(recording.n_channels)
            self._check_room(recording, ask, folder)
            work = work_of(recording.duration_s, len(ask.prompts) + len(ask.negatives))
            with timings.measure("embed"):
                embeddings, states = self.engine.embed(ask.prompts + ask.negatives)
            timings.cache_states = tuple(states)
            with timings.measure("separate"), self.backlog.share(work, call):
                stems, presence = self._write_stems(recording, ask, embeddings, folder, call)
            recording.path.unlink()
            timings.audio_out_s = len(stems) * recording.duration_s
            with timings.measure("pack"):
                path, media_type = stems[0].path, ask.encoding.format.media_type
                if len(stems) > 1 or ask.zip_wanted:
                    path = pack(stems, manifest_of(stems, recording, ask, self.engine.version), folder)
                    media_type = ZIP_TYPE
            return Answer(path, media_type, path.name, presence, states, recording)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise no_room() from error
            raise

    def _check_room(self, recording: Recording, ask: Ask, folder: Path) -> None:
        """libsndfile says little when a disk is full, so ask before."""
        bytes_a_sample = (ask.encoding.pcm_bits or 32) // 8
        needed = recording.n_samples * recording.n_channels * bytes_a_sample * (ask.n_files + 1)
        if shutil.disk_usage(folder).free < needed + _SPARE_BYTES:
            raise no_room(needed)

    def _write_stems(
        self, recording: Recording, ask: Ask, embeddings: list[Embedding], folder: Path, call: Call
    ) -> tuple[list[Stem], list[Presence]]:
        """Write every sound that is asked for; returns them, and each prompt's presence."""
        rate, n_channels, n_samples = recording.sample_rate, recording.n_channels, recording.n_samples
        paths = [folder / name for name in file_names(ask)]
        with self.engine.line(call) as line, ExitStack() as stack:
            listening = self.engine.listen(embeddings, line, rate, len(ask.prompts), exhaustive=ask.exhaustive)
            depth = self.engine.scheduler.depth
            stream = MaskStream(self.engine.signal, rate, n_channels, len(ask.prompts), listening.ask, depth)
            writers = [
                stack.enter_context(
                    self.encoder.open(path, ask.encoding, rate, n_channels, n_samples, check=call.check)
                )
                for path in paths
            ]
            position = 0
            for stems in _separated(stream, listening, recording, call.check):
                mixture = recording.read(position, stems.shape[2] if ask.wants_residual else 0)
                position += stems.shape[2]
                call.tell(position / n_samples)
                pieces = parts(stems, mixture, ask)
                with call.timings.measure("encode"):
                    for writer, piece in zip(writers, pieces, strict=True):
                        writer.write(piece)
            with call.timings.measure("encode"):
                stack.close()
            presence = [within(item, recording.duration_s) for item in listening.finish()]
        prompts: list[tuple[str | None, Presence | None]] = []
        if ask.wants_stems:
            prompts += zip(ask.prompts, presence, strict=True)
        if ask.wants_residual:
            prompts.append((None, None))
        return [Stem(prompt, path, item) for (prompt, item), path in zip(prompts, paths, strict=True)], presence


def _separated(
    stream: MaskStream, listening: Listening, recording: Recording, check: Callable[[], None]
) -> Iterator[np.ndarray]:
    for block in recording.blocks():
        check()
        listening.take(block)
        yield stream.push(block)
    yield stream.finish()


def parts(stems: np.ndarray, mixture: np.ndarray, ask: Ask) -> list[np.ndarray]:
    """What is written of a block: the stems, the residual, or both, in the encoding's steps where it has them.

    Shape:
        stems [P, C, T] and mixture [C, T] float32 (of no samples where no residual is wanted); returns arrays [C, T],
        int32 or float32.

    Raises:
        ModelError: a sample is not finite.
    """
    if not np.isfinite(stems).all():
        raise ModelError("the model's answer is not finite")
    bits = ask.encoding.pcm_bits
    if not ask.wants_residual:
        return [*(stems if bits is None else to_steps(stems, bits))]
    if bits is None:
        residual = mixture - stems.sum(axis=0)
    else:
        stems, residual = with_residual(stems, mixture, bits)
    return [*(stems if ask.wants_stems else ()), residual]
