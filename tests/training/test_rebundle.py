from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.bundle import Bundle
from model.restore import restore
from tests.toy import toy_bundle
from training.rebundle import compare, rebundle


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("bundle"))


def test_the_new_bundle_has_the_new_weights_and_the_old_towers(toy: Bundle, tmp_path: Path) -> None:
    separator = restore(toy)
    with torch.no_grad():
        separator.get_parameter("gate.bias").add_(1.0)
    data = [{"name": "mine", "licence": "CC0", "clips": 3}]
    fresh = rebundle(toy, separator, tmp_path / "new", about={"steps": 5}, data=data, figures={"x": 1.0})
    assert compare(fresh, separator) < 1e-5
    assert compare(toy, separator) > 1e-3
    for name in ("text.onnx", "audio.onnx", "tokenizer.json"):
        assert fresh.file(name).read_bytes() == toy.file(name).read_bytes()
    assert fresh.manifest["training_data"] == [*toy.manifest["training_data"], *data]
    assert f"toy, version {toy.version}" in fresh.file("README.md").read_text()
    again = rebundle(fresh, separator, tmp_path / "again", about={}, data=[], figures={})
    assert again.manifest["name"] == fresh.manifest["name"] == "toy-finetuned"
