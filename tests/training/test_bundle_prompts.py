from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.bundle import Bundle
from model.runtime import Runtime
from tests.toy import PHRASES, toy_bundle, toy_network
from training.bundle_prompts import embed_prompts


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("bundle"))


def test_prompts_are_the_service_s(toy: Bundle) -> None:
    runtime = Runtime(toy, threads=1, device="cpu")
    table = embed_prompts(runtime, set(PHRASES))
    np.testing.assert_allclose(table.pooled_of(PHRASES[:3]), runtime.embed(PHRASES[:3])[2], atol=1e-5)


def test_token_features_of_many_prompts_are_padded_alike(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(toy, threads=1, device="cpu")
    runtime.bundle = replace(toy, network=toy_network("attention"))  # whose network asks for token features
    monkeypatch.setattr("training.bundle_prompts._AT_ONCE", 2)
    table = embed_prompts(runtime, set(PHRASES))
    tokens, padding, pooled = runtime.embed(sorted(PHRASES))
    found_pooled, found_tokens, found_padding = table.lookup([sorted(PHRASES)])
    assert found_tokens is not None
    assert found_padding is not None
    np.testing.assert_array_equal(found_padding[0].numpy(), padding)
    np.testing.assert_allclose(found_tokens[0].numpy()[~padding], tokens[~padding], atol=1e-5)
    np.testing.assert_allclose(found_pooled[0].numpy(), pooled, atol=1e-5)
