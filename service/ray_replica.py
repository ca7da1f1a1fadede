"""The model on a Ray replica: one process that runs windows for any front."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from model.bundle import Bundle
from model.runtime import Runtime
from service.errors import EngineStuck, ModelError
from service.inference import Inference, Task
from service.network import Features


class Replica:
    """Loads the bundle when it starts, and is warm before it is sent anything.

    One window runs at a time, on a thread of its own: on the event loop it would keep Ray from seeing that the replica
    lives, and is taken for dead.
    """

    def __init__(self, bundle: str, version: str, threads: int, device: str) -> None:
        """Load the bundle from this path, which every node has.

        Raises:
            ValueError: another version is there than the front has.
        """
        opened = Bundle.open(Path(bundle))
        if opened.version != version:
            raise ValueError(f"{bundle}: the front has version {version}, this node has {opened.version}")
        self._network = Runtime(opened, threads=threads, device=device)
        self._inference = Inference(self._network, lambda most: None)
        self._thread = ThreadPoolExecutor(1, "engine")
        signal = opened.signal
        window = np.ones((signal.n_bands, signal.window_frames), np.float32)
        self._inference.run([Task(window, self._network.embed(["a sound"]), masked=True)])

    async def provider(self) -> str:
        """What runs the graphs here."""
        return self._network.provider

    async def embed(self, prompts: list[str]) -> Features:
        """As :meth:`service.network.Network.embed`."""
        return await self._run(lambda: self._network.embed(prompts))

    async def infer(self, works: list[tuple[np.ndarray, Features, bool]]) -> list[Any]:
        """Answers to windows, as of :meth:`service.inference.Inference.run`; what it raises of ours is given as one."""
        tasks = [Task(sound, embedding, masked) for sound, embedding, masked in works]

        def run() -> list[Any]:
            try:
                return self._inference.run(tasks)
            except (ModelError, EngineStuck) as error:
                return [error] * len(tasks)

        return await self._run(run)

    async def _run(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def check_health(self) -> None:
        """Ray asks now and then, and replaces who raises."""
        if self._inference.lost:
            raise RuntimeError("the device does not run any more")
