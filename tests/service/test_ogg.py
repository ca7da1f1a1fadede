from __future__ import annotations

from pathlib import Path

import pytest

from service.ogg import fix_serial
from tests.service.ogg_pages import pages, sealed
from tests.service.sounds import encode, noise


def checksum(page: bytes) -> int:
    """The checksum of a page as the Ogg specification has it: bit by bit, its own field counted as zero."""
    remainder = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1) ^ (0x104C11DB7 if remainder & 0x8000_0000 else 0)
    return remainder


def test_serial_and_checksum_of_every_page(tmp_path: Path) -> None:
    path = tmp_path / "sound.ogg"
    path.write_bytes(encode(noise(20_000, 2), 44_100, "OGG", "VORBIS"))
    with path.open("r+b") as file:
        fix_serial(file, serial=0x01020304)
    found = pages(path.read_bytes())
    assert len(found) > 3
    for page in found:
        assert page[14:18] == b"\4\3\2\1"
        assert int.from_bytes(page[22:26], "little") == checksum(page)
        assert sealed(page) == page


def test_what_is_no_ogg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.ogg"
    path.write_bytes(b"RIFF" + bytes(100))
    with path.open("r+b") as file, pytest.raises(ValueError, match="no Ogg page at byte 0"):
        fix_serial(file)
