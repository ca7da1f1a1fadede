from __future__ import annotations

import pytest

from model.bundle import Bundle
from model.runtime import Runtime
from tests.toy import toy_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "film")


@pytest.fixture(scope="session")
def attention_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "attention", "attention")


@pytest.fixture(scope="session")
def runtime(bundle: Bundle) -> Runtime:
    return Runtime(bundle, threads=1, device="cpu")
