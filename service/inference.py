"""What the engine's thread does with a batch of windows: masks, presence, and what to make of each kind of failure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from model.batch import bucket
from model.device import DeviceLost, OutOfMemory
from service.errors import EngineStuck, ModelError
from service.network import Features, Network

log = logging.getLogger("winnow.engine")


@dataclass(eq=False)
class Task:
    """A window as the engine's thread gets it, and when it ran (:func:`time.perf_counter`).

    ``masked`` asks for masks and what is heard, else only for what is heard; ``copies`` of it, as a batch, warm up.
    """

    sound: np.ndarray
    embedding: Features
    masked: bool
    copies: int = 1
    began_s: float = 0.0
    ended_s: float = 0.0

    @property
    def alike(self) -> Hashable:
        """Equal for windows that one run of the network can take; what is only heard goes alone."""
        return (*self.sound.shape, len(self.embedding[2])) if self.masked and self.copies == 1 else self


class Runner(Protocol):
    """Who runs batches of windows: :class:`Inference` here, :class:`service.ray_network.RayNetwork` elsewhere."""

    @property
    def lanes(self) -> int:
        """Batches that may be out at once."""

    @property
    def lost(self) -> bool:
        """Whether it will never run anything any more."""

    def run(self, tasks: list[Task]) -> list[Any]:
        """As :meth:`Inference.run`."""

    def close(self) -> None:
        """Let go of what it holds."""


class Inference:
    """Runs batches on a network, one after the other.

    Attributes:
        lost: whether the device will run nothing any more in this process.
    """

    lanes = 1  # several on one device gain nothing

    def __init__(self, network: Network, shrink: Callable[[int], None]) -> None:
        """Make it; ``shrink`` is told of the windows that a batch may have from now on, when memory was short."""
        self._network, self._shrink = network, shrink
        self.lost = False

    def close(self) -> None:
        """Nothing is held: the network is its owner's."""

    def run(self, tasks: list[Task]) -> list[Any]:
        """Answers to windows that are alike: masks [P, K, N] and presence [P], or presence, or what went wrong.

        Raises:
            EngineStuck: the device is lost.
            Exception: all of them failed, and each is worth a try by itself.
        """
        if self.lost:
            raise EngineStuck("the device does not run any more", retry_after_s=30)
        began_s = time.perf_counter()
        try:
            return self._in_memory(tasks * tasks[0].copies)[: len(tasks)]
        except DeviceLost as error:
            log.critical("the device is lost, and this process of no use: %s", error)
            self.lost = True
            raise EngineStuck("the device does not run any more", retry_after_s=30) from error
        finally:
            ended_s = time.perf_counter()
            for task in tasks:
                task.began_s, task.ended_s = began_s, ended_s

    def _in_memory(self, tasks: list[Task]) -> list[Any]:
        """Where the device's memory is too short, once more in halves, as from then on."""
        try:
            return self._answers(tasks)
        except OutOfMemory as error:
            if len(tasks) == 1:
                raise ModelError("the device has too little memory for one window") from error
            most = bucket(len(tasks)) // 2
            log.warning("out of memory with %d windows at once; from now on at most %d", len(tasks), most)
            self._shrink(most)
        return [answer for at in range(0, len(tasks), most) for answer in self._answers(tasks[at : at + most])]

    def _answers(self, tasks: list[Task]) -> list[Any]:
        if len(tasks) == 1:
            task = tasks[0]
            return [self._mask(task) if task.masked else self._presence(task.sound, task.embedding)]
        masks = self._network.masks([(task.sound, task.embedding) for task in tasks])
        answers: list[Any] = [self._checked(mask) for mask in masks]
        good = [at for at, mask in enumerate(answers) if isinstance(mask, np.ndarray)]
        heard = self._presences([(tasks[at].sound, tasks[at].embedding, masks[at]) for at in good])
        for at, presence in zip(good, heard, strict=True):
            answers[at] = presence if isinstance(presence, ModelError) else (masks[at], presence)
        return answers

    def _mask(self, task: Task) -> tuple[np.ndarray, np.ndarray]:
        try:
            mask = self._network.mask(task.sound, task.embedding)
        except FloatingPointError as error:
            raise ModelError("the model's answer is not finite") from error
        if isinstance(wrong := self._checked(mask), ModelError):
            raise wrong
        if self._network.audio_rate:
            return mask, np.zeros(len(mask))
        return mask, self._presence(task.sound, task.embedding, mask)

    def _presence(self, sound: np.ndarray, embedding: Features, masks: np.ndarray | None = None) -> np.ndarray:
        # Nothing is heard in silence, and an audio tower asked all the same divides nothing by nothing.
        if not sound.any():
            return np.zeros(len(embedding[2]))
        heard = self._checked(self._network.presence(sound, embedding, masks))
        if isinstance(heard, ModelError):
            raise heard
        return heard

    def _presences(self, windows: Sequence[tuple[np.ndarray, Features, np.ndarray]]) -> list[np.ndarray | ModelError]:
        answers: list[np.ndarray | ModelError] = [np.zeros(len(masks)) for _, _, masks in windows]
        if self._network.audio_rate:
            return answers
        loud = [at for at, (sound, _, _) in enumerate(windows) if sound.any()]
        if loud:
            for at, heard in zip(loud, self._network.presences([windows[at] for at in loud]), strict=True):
                answers[at] = self._checked(heard)
        return answers

    def _checked(self, numbers: np.ndarray) -> np.ndarray | ModelError:
        return numbers if np.isfinite(numbers).all() else ModelError("the model's answer is not finite")
