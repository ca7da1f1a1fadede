"""Which windows the engine takes next: turns by call, weighed, in batches where batches pay, nothing for the departed.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) of windows: every call's line has a virtual time that goes on by
``1 / weight`` for each of its windows, the line that is farthest behind is served, and a line that comes or comes
back begins where the others are, so that nobody saves up turns. A call of three seconds beside one of ten minutes waits
for a window of it at a time, never for all.

It is work-conserving: who is there is taken at once, and batches form by themselves while the one before runs. It knows
no network and starts no thread: engines call :meth:`Scheduler.take` and :meth:`Scheduler.run`, tests do with a clock of
their own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Protocol

from service.call import Call
from service.errors import Abandoned, WinnowError
from service.window import Line, Window

_LOOK_S = 0.05  # how often a call that waits for room looks whether it is wanted still


class Observer(Protocol):
    """Who is told; see :class:`service.metrics.Metrics`."""

    def batched(self, size: int, waited_s: list[float]) -> None:
        """A batch begins; each of its windows has waited so long."""

    def dropped(self, why: str) -> None:
        """A window was dropped, ``abandoned`` or ``late``, before the engine saw it."""

    def failed(self) -> None:
        """A window failed by itself."""


class Scheduler:
    """Windows of many calls for one engine. Safe to use from any threads.

    Attributes:
        max_batch: windows that the engine takes at once.
        observer: is told of batches, of what is dropped and of what fails.
    """

    def __init__(
        self,
        *,
        max_batch: int = 1,
        lanes: int = 1,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer | None = None,
    ) -> None:
        """Begin, for an engine that runs ``lanes`` batches at once; ``clock`` gives seconds that never go back."""
        if max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {max_batch}")
        self.max_batch = max_batch
        self._lanes = lanes
        self._clock = clock
        self.observer = observer
        self._lines: list[Line] = []
        self._now = 0.0  # virtual time: where the line was that was served last
        self._closed = False
        self._changed = threading.Condition()

    @property
    def depth(self) -> int:
        """Windows of one call that may be without an answer: what can run at once, and the next batch is ready.

        On a CPU it pays as well: the engine runs a window while the spectra of the one before are made into sound.
        A minute of audio alone took 0.73 of its time with two in flight (medians of six turns in one run; a third
        gained nothing more), three clients at once 1.02; a short clip beside a long file waited 1.6 times its time and
        not 1.2, for the long one takes more of the cores.
        """
        return (self._lanes + 1) * self.max_batch

    @property
    def pending(self) -> int:
        """Windows that no batch has taken yet."""
        with self._changed:
            return sum(len(line.waiting) for line in self._lines)

    @contextmanager
    def line(self, call: Call) -> Iterator[Line]:
        """A call's line; what it still has waiting at the end of the block never runs."""
        line = Line(call, passed=self._now)
        with self._changed:
            self._lines.append(line)
        try:
            yield line
        finally:
            with self._changed:
                self._lines.remove(line)
                for window in line.waiting:
                    window.answer.cancel()
                line.waiting.clear()
                self._changed.notify_all()

    def submit(self, line: Line, work: Any, alike: Hashable = None) -> Future[Any]:
        """Ask for a window; waits while the line has ``depth`` of them without an answer.

        Raises:
            Abandoned, DeadlinePassed: the call is not wanted any more.
            RuntimeError: the scheduler is closed.
        """
        with self._changed:
            while line.in_flight >= self.depth and not self._closed:
                line.call.check()
                self._changed.wait(_LOOK_S)
            line.call.check()
            if self._closed:
                raise RuntimeError("the engine is closed")
            window = Window(line, work, alike, self._clock())
            if not line.waiting:  # it comes back: turns that it did not take are not saved up
                line.passed = max(line.passed, self._now)
            line.waiting.append(window)
            line.in_flight += 1
            self._changed.notify_all()
        return window.answer

    def take(self, timeout_s: float | None = None) -> list[Window]:
        """The next batch, of the lines farthest behind; waits for one, empty after ``timeout_s`` or when closed."""
        with self._changed:
            while True:
                batch = self._form()
                if batch or self._closed:
                    break
                if not self._changed.wait(timeout_s):
                    return []
            started_s = self._clock()
        if batch and self.observer is not None:
            self.observer.batched(len(batch), [started_s - window.asked_s for window in batch])
        return batch

    def _form(self) -> list[Window]:
        batch: list[Window] = []
        while len(batch) < self.max_batch:
            self._drop()
            lines = [line for line in self._lines if line.waiting]
            if batch:
                lines = [line for line in lines if line.waiting[0].alike == batch[0].alike]
            if not lines:
                break
            line = min(lines, key=lambda line: line.passed)  # the first that came, of equals
            self._now = max(self._now, line.passed)
            line.passed += 1.0 / line.call.weight
            window = line.waiting.popleft()
            if window.answer.set_running_or_notify_cancel():
                batch.append(window)
            else:
                self._left(window)
        return batch

    def _drop(self) -> None:
        """Whatever its call does not want any more gets that as its answer, before the engine sees it."""
        for line in self._lines:
            if not line.waiting:
                continue
            try:
                line.call.check()
            except (Abandoned, WinnowError) as error:
                why = "abandoned" if isinstance(error, Abandoned) else "late"
                for window in line.waiting:
                    if window.answer.set_running_or_notify_cancel():
                        window.answer.set_exception(error)
                    self._left(window)
                    if self.observer is not None:
                        self.observer.dropped(why)
                line.waiting.clear()

    def run(self, batch: list[Window], infer: Callable[[list[Any]], list[Any]]) -> None:
        """Give a batch to the engine and its answers to those who wait.

        ``infer`` takes the windows' work and gives an answer to each, an exception where that one has failed. Where it
        raises, every window is tried once more by itself, so that what is wrong with one is not the others' loss.
        """
        for window, answer in zip(batch, self._answers(batch, infer), strict=True):
            self._left(window)
            if isinstance(answer, BaseException):
                if self.observer is not None:
                    self.observer.failed()
                window.answer.set_exception(answer)
            else:
                window.answer.set_result(answer)
        with self._changed:
            self._changed.notify_all()

    def _answers(self, batch: list[Window], infer: Callable[[list[Any]], list[Any]]) -> list[Any]:
        try:
            answers = infer([window.work for window in batch])
        except Exception as error:
            return [error] if len(batch) == 1 else [self._answers([window], infer)[0] for window in batch]
        if len(answers) != len(batch):
            return [RuntimeError(f"{len(batch)} windows got {len(answers)} answers")] * len(batch)
        return answers

    def _left(self, window: Window) -> None:
        with self._changed:
            window.line.in_flight -= 1

    def close(self) -> None:
        """No more windows: those that wait are cancelled, :meth:`take` gives nothing."""
        with self._changed:
            self._closed = True
            for line in self._lines:
                for window in line.waiting:
                    window.answer.cancel()
                line.waiting.clear()
            self._changed.notify_all()
