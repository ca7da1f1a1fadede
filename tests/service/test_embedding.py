from __future__ import annotations

import numpy as np
import pytest

from service.embedding import Embedding, join


def embedding(length: int = 3) -> Embedding:
    rng = np.random.default_rng(length)
    return Embedding(rng.normal(size=(length, 4)).astype(np.float32), rng.normal(size=5).astype(np.float32))


def test_round_trip_to_the_bit() -> None:
    original = embedding()
    copy = Embedding.from_bytes(original.to_bytes())
    assert np.array_equal(copy.tokens, original.tokens)
    assert np.array_equal(copy.pooled, original.pooled)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\x80\4K\1." + data[5:],  # a pickle is just bytes here
        lambda data: data[:4] + b"\2\0" + data[6:],
        lambda data: data[:6] + b"\xff\xff" + data[8:],
        lambda data: data[:-4] + b"\0\0\xc0\x7f",
    ],
)
def test_spoiled_bytes_are_refused(spoil) -> None:
    with pytest.raises(ValueError, match="embedding"):
        Embedding.from_bytes(spoil(embedding().to_bytes()))


def test_join_pads_the_shorter() -> None:
    tokens, padding, pooled = join([embedding(1), embedding(3)])
    assert tokens.shape == (2, 3, 4)
    assert pooled.shape == (2, 5)
    assert padding.tolist() == [[False, True, True], [False, False, False]]
    assert not tokens[0, 1:].any()
