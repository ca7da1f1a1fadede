"""The loaded model behind the service: text through the cache, windows in turns of calls, warmed before it is used."""

from __future__ import annotations

import time
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np

from model.batch import BUCKETS, bucket
from model.spec import SignalSpec
from service.call import Call
from service.embedding import Embedding, join
from service.engine_thread import EngineThread
from service.inference import Inference, Runner, Task
from service.listening import Listening
from service.network import Features, Front, Network
from service.scheduler import Scheduler
from service.text_cache import TextCache
from service.window import Line

_LOOK_S = 0.1  # how often a call that waits for its window looks whether it is wanted still
_LEAVE_S = 5.0  # what a closing engine waits for the window that runs


class Asked:
    """An answer of the engine's that may not be there yet."""

    def __init__(self, ask: Task, line: Line, answer: Future[Any], asked_s: float) -> None:
        self._ask, self._line, self._answer, self._asked_s = ask, line, answer, asked_s

    def result(self) -> Any:
        """Wait for it; once.

        Raises:
            As :meth:`Engine.infer`.
        """
        call, ask = self._line.call, self._ask
        while True:
            try:
                result = self._answer.result(_LOOK_S)
                break
            except TimeoutError:
                call.check()  # leaves the window that runs to end by itself
        call.timings.add("turn", self._asked_s, ask.began_s)
        call.timings.add("infer", ask.began_s, ask.ended_s)
        return result


class Engine:
    """A model in service.

    On a CPU one window is inferred at a time, on all the threads the model has: several at once on the same cores gain
    nothing (measured in the reference), and taking turns by window lets a short request pass a long one. A GPU takes up
    to ``max_batch`` of them, of any requests, that are alike. Safe to use from several threads.

    Attributes:
        signal: the model's signal.
        version: of the bundle.
        about: what ``/v1/models`` says of it.
        scheduler: whose turn it is.
    """

    def __init__(
        self,
        network: Front,
        signal: SignalSpec,
        version: str,
        about: dict[str, Any],
        cache: TextCache,
        max_batch: int = 1,
        runner: Runner | None = None,
    ) -> None:
        """Start the threads that run windows.

        Args:
            network: what embeds; a :class:`Network`, which runs windows, unless there is a ``runner``.
            signal: see above, as are ``version`` and ``about``.
            version: of the bundle.
            about: what is said of it.
            cache: of embeddings.
            max_batch: windows that are run at once.
            runner: runs windows elsewhere.
        """
        self.network = network
        self.signal = signal
        self.version = version
        self.about = about
        self._cache = cache
        self._runner = runner or Inference(cast(Network, network), self._shrink)
        self.scheduler = Scheduler(max_batch=max_batch, lanes=self._runner.lanes)
        self._threads = [EngineThread(self.scheduler, self._runner.run) for _ in range(self._runner.lanes)]
        self.ready = False

    @property
    def stuck(self) -> bool:
        """Whether the engine will never answer again; only a new process helps."""
        return self._runner.lost or all(thread.stuck for thread in self._threads)

    def line(self, call: Call) -> AbstractContextManager[Line]:
        """A call's place among the others, while the block lasts."""
        return self.scheduler.line(call)

    def warm_up(self) -> None:
        """Run every graph once at the shapes that requests use, past the cache, so that the first one is no slower.

        A GPU prepares itself for each batch; one that its memory does not hold is found out here.
        """
        embedding = join([self._compute("a sound")])
        with self.line(Call()) as line:
            window = np.ones((self.signal.n_bands, self.signal.window_frames), np.float32)
            for size in BUCKETS[: BUCKETS.index(bucket(self.scheduler.max_batch)) + 1]:
                self._ask(Task(window, embedding, masked=True, copies=size), line).result()
            if self.network.audio_rate:
                self.hear(np.ones(self.network.audio_samples, np.float32), embedding, line)
        self.ready = True

    def embed(self, prompts: tuple[str, ...]) -> tuple[list[Embedding], list[str]]:
        """Each prompt's embedding, and where it came from."""
        pairs = [self._cache.embed(prompt, self._compute) for prompt in prompts]
        return [embedding for embedding, _ in pairs], [state for _, state in pairs]

    def _compute(self, prompt: str) -> Embedding:
        # One prompt at a time: what it is beside must not change a bit of it, cached or not.
        tokens, padding, pooled = self.network.embed([prompt])
        return Embedding(np.asarray(tokens[0][~padding[0]], np.float32), np.asarray(pooled[0], np.float32))

    def infer(self, bands: np.ndarray, embedding: Features, line: Line) -> tuple[np.ndarray, np.ndarray]:
        """Masks of one window and each prompt's presence in it, when the line's turn comes.

        Presence is zero from a model that hears waveforms, for which :meth:`hear` is there.

        Shape:
            bands [K, N]; returns [P, K, N] and [P].

        Raises:
            ModelError: a number is not finite.
            Abandoned, DeadlinePassed: the line's call is not wanted any more.
        """
        mask, heard = self.ask(bands, embedding, line).result()
        return mask, heard

    def ask(self, bands: np.ndarray, embedding: Features, line: Line) -> Asked:
        """As :meth:`infer`, but does not wait for the answer, only for room in the line."""
        return self._ask(Task(bands, embedding, masked=True), line)

    def hear(self, sound: np.ndarray, embedding: Features, line: Line) -> np.ndarray:
        """Each prompt's presence in bands, or in a waveform at the model's ``audio_rate``, when the line's turn comes.

        Shape:
            sound [K, N] or [T]; returns [P].

        Raises:
            As :meth:`infer`.
        """
        heard: np.ndarray = self._ask(Task(sound, embedding, masked=False), line).result()
        return heard

    def _ask(self, ask: Task, line: Line) -> Asked:
        asked_s = time.perf_counter()
        return Asked(ask, line, self.scheduler.submit(line, ask, ask.alike), asked_s)

    def _shrink(self, most: int) -> None:
        self.scheduler.max_batch = min(self.scheduler.max_batch, most)

    def cache_info(self) -> dict[str, Any]:
        """The text cache's tiers and how they fare."""
        return self._cache.info()

    def listen(
        self,
        embeddings: list[Embedding],
        line: Line,
        sample_rate: int,
        n_wanted: int | None = None,
        *,
        exhaustive: bool = False,
    ) -> Listening:
        """Begin a recording, whose windows take the turns of ``line``.

        Embeddings after the first ``n_wanted`` are of negatives: they lower the masks of the rest, and have none.
        ``exhaustive`` says that there is no sound but these.
        """
        n_wanted = len(embeddings) if n_wanted is None else n_wanted
        return Listening(self, embeddings, line, sample_rate, n_wanted, exhaustive=exhaustive)

    def close(self) -> None:
        """Let go of connections; what waits for a window is cancelled."""
        self.ready = False
        self.scheduler.close()
        for thread in self._threads:
            thread.join(_LEAVE_S)
        self._runner.close()
        self._cache.close()
