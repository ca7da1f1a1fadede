"""A session run on buffers that stay on its device from run to run, for each size of input that it meets."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

_KEPT = 16  # sizes whose buffers are kept; a service's windows are of few lengths and batches, its last ones of many


class Binding:
    """Buffers of one session. Safe to use from several threads, one of which runs at a time."""

    def __init__(self, onnxruntime: Any, session: Any) -> None:
        """Take a session of the module that made it."""
        self._onnxruntime, self._session = onnxruntime, session
        self._device = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"
        self._bound: OrderedDict[Any, tuple[Any, dict[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """As a session's ``run``; what is returned is a copy in the host's memory."""
        key = (tuple(outputs), tuple((name, array.shape) for name, array in inputs.items()))
        with self._lock:
            if key not in self._bound:
                self._bound[key] = self._bind(outputs, inputs)
                if len(self._bound) > _KEPT:
                    self._bound.popitem(last=False)
            self._bound.move_to_end(key)
            binding, buffers = self._bound[key]
            for name, array in inputs.items():
                buffers[name].update_inplace(np.ascontiguousarray(array))
            self._session.run_with_iobinding(binding)
            return [np.array(value) for value in binding.copy_outputs_to_cpu()]

    def _bind(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
        binding, buffers = self._session.io_binding(), {}
        for name, array in inputs.items():
            value = self._onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)
            buffers[name] = value
            binding.bind_ortvalue_input(name, value)
        first = self._session.run(outputs, inputs)  # says how large the outputs are
        for name, array in zip(outputs, first, strict=True):
            binding.bind_ortvalue_output(
                name, self._onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype, self._device, 0)
            )
        return binding, buffers
