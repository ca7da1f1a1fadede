"""Where graphs run: ONNX Runtime's builds and providers, what it is told of a device, and what its failures mean."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.binding import Binding

DEVICES = ("auto", "cpu", "cuda")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
CONV_ALGORITHMS = ("DEFAULT", "HEURISTIC", "EXHAUSTIVE")

_MEMORY = re.compile(r"out of memory|failed to allocate memory|bad_alloc|ALLOC_FAILED|BFCArena", re.IGNORECASE)
# After these every call of the process fails: a kernel that wrote where it must not, a GPU that is gone or reset.
_LOST = re.compile(
    r"CUDA (failure|error) (46|100|7(00|02|0[9]|1[0-9]|20)|999)\b"
    r"|illegal (memory access|address|instruction)|misaligned address|unspecified launch failure"
    r"|device-side assert|uncorrectable ECC|device is (lost|busy or unavailable)"
    r"|(CUDNN|CUBLAS)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)",
    re.IGNORECASE,
)
_log = logging.getLogger(__name__)


class OutOfMemory(RuntimeError):
    """The device had too little memory for a run; a smaller one may fit."""


class DeviceLost(RuntimeError):
    """The device runs nothing any more in this process."""


@dataclass(frozen=True)
class CudaOptions:
    """What CUDA is told. ``winnow bench --device cuda`` compares these.

    Attributes:
        conv_algorithm: how cuDNN's convolutions are chosen, one of ``CONV_ALGORITHMS``. An exhaustive search stalls at
            the first window of each new length and batch.
        max_workspace: whether convolutions may take as much scratch memory as their fastest form wants.
        arena: how the pool of memory grows.
        io_binding: whether inputs and outputs live in buffers of the device that are kept from run to run.
    """

    conv_algorithm: str = "HEURISTIC"
    max_workspace: bool = True
    arena: Literal["kSameAsRequested", "kNextPowerOfTwo"] = "kSameAsRequested"
    io_binding: bool = False

    def provider(self) -> tuple[str, dict[str, str]]:
        """As ONNX Runtime wants it; full precision, so that a GPU answers as a CPU does."""
        return CUDA, {
            "use_tf32": "0",
            "cudnn_conv_algo_search": self.conv_algorithm,
            "cudnn_conv_use_max_workspace": str(int(self.max_workspace)),
            "arena_extend_strategy": self.arena,
            "do_copy_in_default_stream": "1",
        }


class Graph:
    """A loaded graph. Safe to use from several threads.

    Attributes:
        inputs: names of what goes in.
        provider: what runs it.
    """

    def __init__(self, session: Any, binding: Binding | None = None) -> None:
        """Take an inference session, and buffers where it is to be run with them."""
        self._session, self._binding = session, binding
        self.inputs: list[str] = [tensor.name for tensor in session.get_inputs()]
        self.provider: str = session.get_providers()[0]

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run it.

        Raises:
            OutOfMemory: the device has too little.
            DeviceLost: it will not run anything any more.
            Exception: ONNX Runtime's own, which have no common base but this.
        """
        try:
            if self._binding is not None:
                return self._binding.run(outputs, inputs)
            answer: list[np.ndarray] = self._session.run(outputs, inputs)
            return answer
        except Exception as error:
            kind = kind_of(error)
            if kind is None:
                raise
            raise kind(str(error)) from error


def kind_of(error: Exception) -> type[OutOfMemory] | type[DeviceLost] | None:
    """What an exception of ONNX Runtime's means; it says so in words only."""
    text = str(error)
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return OutOfMemory
    return DeviceLost if _LOST.search(text) else None


class Opener:
    """What every session is opened with."""

    def __init__(self, threads: int, device: str, cuda: CudaOptions) -> None:
        """Find the runtime and see what it offers.

        Raises:
            RuntimeError: there is none, or two, or ``cuda`` is asked for and this build has none.
        """
        self._onnxruntime = import_onnxruntime()
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that spin for work between two windows take the cores from whoever does the transforms.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; what matters of the providers is checked below
        self._options, self._device, self._bound = options, device, cuda.io_binding
        self._providers: list[Any] = [CPU]
        offered = CUDA in self._onnxruntime.get_available_providers()
        if device == "cuda" and not offered:
            raise RuntimeError(
                f"device 'cuda' needs the GPU build of ONNX Runtime, this one offers only "
                f"{', '.join(self._onnxruntime.get_available_providers())}; "
                f"mend it with: pip uninstall -y onnxruntime && pip install 'winnow[gpu]'"
            )
        if device != "cpu" and offered:
            self._load_cuda_libraries()
            self._providers.insert(0, cuda.provider())

    def open(self, path: Path) -> Graph:
        """Load a graph, and see that the device is really the one meant: ONNX Runtime falls back without a word.

        Raises:
            ValueError: it cannot be loaded.
            RuntimeError: ``cuda`` was asked for and does not work.
        """
        try:
            session = self._onnxruntime.InferenceSession(str(path), self._options, providers=self._providers)
        except Exception as error:  # its exceptions have no common base but this
            raise ValueError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        if len(self._providers) > 1 and session.get_providers()[0] != CUDA:
            if self._device == "cuda":
                raise RuntimeError(
                    "device 'cuda' was asked for and CUDA cannot be used: no GPU, driver or CUDA library"
                )
            _log.warning("the GPU build of ONNX Runtime is installed and CUDA cannot be used; running on the CPU")
            self._providers = [CPU]  # say it once
        return Graph(session, Binding(self._onnxruntime, session) if self._bound else None)

    def _load_cuda_libraries(self) -> None:
        """Load CUDA and cuDNN from their Python packages, where they are; it prints what it does not find."""
        if hasattr(self._onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):
                self._onnxruntime.preload_dlls()


def import_onnxruntime() -> Any:
    """ONNX Runtime, if exactly one build of it is installed; the two share one folder and break each other."""
    builds = ("onnxruntime", "onnxruntime-gpu")
    installed = []
    for build in builds:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(build)
            installed.append(build)
    if len(installed) > 1:
        raise RuntimeError(
            "onnxruntime and onnxruntime-gpu are both installed and hide each other; mend it with: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'winnow[cpu]'   (or 'winnow[gpu]')"
        )
    # Its Linux builds report to their maker unless told not to, before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(
            "ONNX Runtime is not installed; mend it with: pip install winnow[cpu]   (or winnow[gpu])"
        ) from error
    return onnxruntime
