"""A separator back from its bundle, to go on training what was shipped, and its weights into the bundle's graph again.

The graph's initialisers carry the names of the module's parameters (``.half`` added where they are stored in half
precision). What is lost is what the export folded: batch normalisations went into the convolutions before them, and
weights were rounded to half precision. So the module that comes back computes what the graph computes, but a
normalisation in it has no statistics of its own: mean 0, variance 1, and they must stay so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from model.bundle import Bundle
from model.export import prepare
from model.network import build

_HALF = ".half"


class FixedNorm(nn.BatchNorm2d):
    """A batch normalisation that always uses its stored statistics, also where the network is set to train.

    The convolution before it holds the scale and the shift of statistics that are gone. Were a batch's own taken, the
    first step of training would rescale every channel; so :meth:`train` leaves it in evaluation, and its buffers as
    they are. Its weight and bias are learned as any others.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.eval()

    def train(self, mode: bool = True) -> FixedNorm:
        """Stay in evaluation."""
        super().train(False)
        return self


def restore(bundle: Bundle) -> nn.Module:
    """Build the separator of a bundle with the weights of its graph.

    Its masks are the graph's to float32's rounding. It can be trained and exported again; every normalisation in it is
    a :class:`FixedNorm`.

    Raises:
        ValueError: the graph cannot be read, or its initialisers are not those of the network of its manifest; the
            message names them.
    """
    path = bundle.file("separator.onnx")
    stored = _initialisers(path)
    separator = build(bundle.network, bundle.signal)
    state = separator.state_dict()
    with torch.no_grad():
        for prefix, index in list(_folded(separator)):
            _unfold(separator, state, stored, f"{prefix}.{index}", f"{prefix}.{index + 1}")
    unknown, missing = sorted(set(stored) - set(state)), sorted(set(state) - set(stored))
    if unknown or missing:
        raise ValueError(f"{path}: not the weights of the manifest's network: unknown {unknown}, missing {missing}")
    wrong = [
        f"{name} {list(stored[name].shape)} for {list(state[name].shape)}"
        for name in state
        if stored[name].shape != state[name].shape
    ]
    if wrong:
        raise ValueError(f"{path}: weights of another shape than the manifest's network has: {', '.join(wrong)}")
    separator.load_state_dict(stored)
    return separator.eval()


def store(separator: nn.Module, bundle: Bundle, path: Path) -> None:
    """Write the bundle's graph with a module's weights in place of its own: the exporter is not needed again.

    Args:
        separator: a network of the bundle's spec, with normalisations of any kind.
        bundle: whose ``separator.onnx`` is copied.
        path: of the graph to write.

    Raises:
        ValueError: the module is another network's, or a weight is beyond half precision where the graph stores halves.
    """
    model = onnx.load(str(bundle.file("separator.onnx")))
    weights = prepare(separator, half=True).state_dict()
    names = {tensor.name.removesuffix(_HALF) for tensor in model.graph.initializer}
    unknown, missing = sorted(set(weights) - names), sorted(names - set(weights))
    if unknown or missing:
        raise ValueError(f"{bundle.path}: not the module's graph: unknown {unknown}, missing {missing}")
    for tensor in model.graph.initializer:
        value = weights[tensor.name.removesuffix(_HALF)].numpy()
        if list(tensor.dims) != list(value.shape):
            raise ValueError(f"{bundle.path}: {tensor.name} is {list(tensor.dims)}, the module's {list(value.shape)}")
        if tensor.name.endswith(_HALF):
            with np.errstate(over="ignore"):  # told by the comparison
                halves = value.astype(np.float16)
            if not np.array_equal(halves.astype(np.float32), value):
                raise ValueError(f"{tensor.name}: {np.abs(value).max():.3g} is beyond half precision")
            value = halves
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    path.write_bytes(model.SerializeToString())


def _initialisers(path: Path) -> dict[str, Tensor]:
    """Name of the parameter -> float32 tensor."""
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's own errors share no public base
        raise ValueError(f"{path}: cannot be read as ONNX: {error}") from error
    return {
        tensor.name.removesuffix(_HALF): torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in graph.initializer
    }


def _folded(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Name of the sequence, and place in it, of every convolution that a batch normalisation follows."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Sequential):
            for index in range(len(part) - 1):
                if isinstance(part[index], nn.Conv2d) and isinstance(part[index + 1], nn.BatchNorm2d):
                    yield name, index


def _unfold(
    separator: nn.Module, state: dict[str, Tensor], stored: dict[str, Tensor], convolution: str, norm: str
) -> None:
    """Put a :class:`FixedNorm` in place of ``norm``, and give it the bias that the export put into the convolution."""
    parent, _, index = norm.rpartition(".")
    before = separator.get_submodule(norm)
    assert isinstance(before, nn.BatchNorm2d)
    fixed = FixedNorm(before.num_features)
    separator.get_submodule(parent)[int(index)] = fixed  # type: ignore[operator]
    bias = f"{convolution}.bias"
    if bias in stored:
        stored[f"{norm}.bias"] = stored[bias]
        if bias in state:
            stored[bias] = torch.zeros_like(stored[bias])
        else:
            del stored[bias]
    stored[f"{norm}.weight"] = torch.ones(fixed.num_features)
    stored[f"{norm}.running_mean"] = torch.zeros(fixed.num_features)
    # Its epsilon is added before the root is taken, so that this is a division by one.
    stored[f"{norm}.running_var"] = torch.full((fixed.num_features,), 1.0 - fixed.eps)
    stored[f"{norm}.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
