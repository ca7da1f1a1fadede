"""What is done to an exported ONNX graph before it ships: named axes, half-precision storage, nothing private."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tidy(model: onnx.ModelProto, axes: Mapping[str, Sequence[int | str]]) -> None:
    """Name the dynamic axes of inputs and outputs, and drop what the exporter noted of source files and their paths.

    Args:
        model: changed in place.
        axes: of each input and output, a number or a name for each axis.
    """
    graph = model.graph
    for tensor in (*graph.input, *graph.output):
        for dimension, name in zip(tensor.type.tensor_type.shape.dim, axes[tensor.name], strict=True):
            if isinstance(name, str):
                dimension.dim_param = name
    # The inner shapes speak of the exporter's own symbols; ONNX Runtime infers them again.
    del graph.value_info[:]
    del model.metadata_props[:], graph.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    for node in (*graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in (*graph.input, *graph.output, *graph.initializer):
        del tensor.metadata_props[:]
        tensor.doc_string = ""


def store_halves(model: onnx.ModelProto, min_numbers: int) -> None:
    """Store float32 weights in half precision where that loses nothing, each behind a cast that loading folds away.

    Args:
        model: changed in place.
        min_numbers: smaller tensors stay as they are.
    """
    kept, casts = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            with np.errstate(over="ignore"):
                halves = values.astype(np.float16)
            if values.size >= min_numbers and np.array_equal(halves.astype(np.float32), values):
                stored = numpy_helper.from_array(halves, f"{tensor.name}.half")
                casts.append(helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT))
                kept.append(stored)
                continue
        kept.append(tensor)
    nodes = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend([*casts, *nodes])
