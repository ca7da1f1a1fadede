"""Pages of Ogg files: taken apart, changed, and sealed with the checksum that makes a decoder read them."""

from __future__ import annotations

from collections.abc import Iterator


def _table() -> list[int]:
    table = []
    for byte in range(256):
        remainder = byte << 24
        for _ in range(8):
            remainder = (remainder << 1) ^ (0x104C11DB7 if remainder & 0x8000_0000 else 0)
        table.append(remainder)
    return table


_TABLE = _table()


def sealed(page: bytes) -> bytes:
    """The page with the checksum that its bytes have."""
    remainder = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        remainder = (remainder << 8 & 0xFFFF_FFFF) ^ _TABLE[remainder >> 24 ^ byte]
    return page[:22] + remainder.to_bytes(4, "little") + page[26:]


def pages(data: bytes) -> list[bytes]:
    """The pages of a whole file."""
    found = []
    while data:
        assert data[:4] == b"OggS"
        length = 27 + data[26] + sum(data[27 : 27 + data[26]])
        found.append(data[:length])
        data = data[length:]
    return found


def granule(page: bytes) -> int:
    """Number of samples at the page's end."""
    return int.from_bytes(page[6:14], "little", signed=True)


def longer(data: bytes, times: int) -> Iterator[bytes]:
    """Pages of a file whose sound, where it is constant, lasts ``times`` as long: made of repeated pages, none is new.

    Of the pages with sound the first and the last stay, and those between are repeated.
    """
    all_pages = pages(data)
    n_heads = next(number for number, page in enumerate(all_pages) if granule(page) > 0)
    heads, first, middle, last = all_pages[:n_heads], all_pages[n_heads], all_pages[n_heads + 1 : -1], all_pages[-1]
    assert middle
    step = granule(middle[-1]) - granule(first)
    repeated = [
        *((page, 0) for page in (*heads, first)),
        *((page, step * number) for number in range(times) for page in middle),
        (last, step * (times - 1)),
    ]
    for sequence, (page, ahead) in enumerate(repeated):
        at = (granule(page) + (ahead if granule(page) > 0 else 0)).to_bytes(8, "little", signed=True)
        yield sealed(page[:6] + at + page[14:18] + sequence.to_bytes(4, "little") + page[22:])
