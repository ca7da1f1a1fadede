"""The separator's graph with its convolutions and matrices in half precision, for a device to try."""

from __future__ import annotations

import importlib
from pathlib import Path

from service.errors import StartError

# Sums of many squares, and logarithms of little, leave what half precision holds.
_KEPT = ("Div", "Exp", "LayerNormalization", "Log", "Pow", "ReduceL2", "ReduceMean", "ReduceSum", "Softmax", "Sqrt")


def convert(path: Path, folder: Path) -> Path:
    """Write the graph at ``path`` in half precision into ``folder``; what goes in and out stays float32.

    Raises:
        StartError: the package ``onnx``, which only training needs otherwise, is not installed.
    """
    import onnxruntime

    try:
        onnx = importlib.import_module("onnx")
        float16 = importlib.import_module("onnxruntime.transformers.float16")
    except ImportError as error:
        raise StartError("fp16 needs the package onnx; mend it with: pip install onnx") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    folded = folder / "folded.onnx"  # without the casts that the bundle's weights are stored behind
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *_KEPT]
    half = float16.convert_float_to_float16(onnx.load(folded), keep_io_types=True, op_block_list=blocked)
    written = folder / "half.onnx"
    onnx.save(half, written)
    return written
