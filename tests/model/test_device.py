"""What CUDA is told, and what its failures mean: they say so in words only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model.device import CONV_ALGORITHMS, CUDA, CudaOptions, DeviceLost, Graph, OutOfMemory, kind_of

SAID = {
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool) Failed to allocate memory for requested buffer of size 536870912": OutOfMemory,
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; expr=cudaMalloc((void**)&p, size);": OutOfMemory,
    "CUDNN failure 4000: CUDNN_STATUS_ALLOC_FAILED": OutOfMemory,
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0": DeviceLost,
    "CUDA failure 719: unspecified launch failure ; GPU=0": DeviceLost,
    "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0": DeviceLost,
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: bands": None,
    "CUDA failure 1: invalid argument": None,
    "window 7002 failed": None,
}


@pytest.mark.parametrize("text", SAID)
def test_failures_are_known_by_their_words(text: str) -> None:
    assert kind_of(RuntimeError(text)) is SAID[text]


def test_a_process_out_of_memory_is_too() -> None:
    assert kind_of(MemoryError()) is OutOfMemory


def test_a_graph_says_what_failed() -> None:
    def run(outputs: Any, inputs: Any) -> Any:
        raise RuntimeError(next(wrong))

    session = SimpleNamespace(get_inputs=list, get_providers=lambda: [CUDA], run=run)
    wrong = iter(["out of memory", "CUDA failure 700: illegal memory access", "something else"])
    graph = Graph(session)
    for kind in (OutOfMemory, DeviceLost):
        with pytest.raises(kind):
            graph.run(["mask"], {"bands": np.zeros(1)})
    with pytest.raises(RuntimeError, match="something else") as caught:
        graph.run(["mask"], {"bands": np.zeros(1)})
    assert type(caught.value) is RuntimeError


@pytest.mark.parametrize("algorithm", CONV_ALGORITHMS)
def test_options_are_words_for_the_provider(algorithm: str) -> None:
    name, told = CudaOptions(conv_algorithm=algorithm, max_workspace=False).provider()
    assert name == CUDA
    assert (told["cudnn_conv_algo_search"], told["cudnn_conv_use_max_workspace"]) == (algorithm, "0")
    assert told["use_tf32"] == "0"
    assert all(isinstance(value, str) for value in told.values())
