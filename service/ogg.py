"""Fix the serial number of an Ogg file, which libsndfile draws from the clock: the same request gives the same bytes.

Each page carries the serial and a checksum over itself. The checksum (polynomial 0x04C11DB7, no reflection, starting
from zero) is linear, so the new one is the old one XOR the checksum of the difference, which is four bytes and then
zeros: no sample data is read, and an hour of pages takes about a second.
"""

from __future__ import annotations

from typing import BinaryIO

_POLYNOMIAL = 0x104C11DB7
_SERIAL_AT, _CHECKSUM_AT, _HEADER_BYTES = 14, 22, 27


def fix_serial(file: BinaryIO, serial: int = 0x57494E4E) -> None:
    """Rewrite every page of the single logical stream in ``file``, open for both ways, to ``serial``, in place.

    Raises:
        ValueError: a page does not begin where the last one ends.
    """
    file.seek(0)
    while _fix_page(file, serial):
        pass
    file.flush()


def _fix_page(file: BinaryIO, serial: int) -> bool:
    start = file.tell()
    header = file.read(_HEADER_BYTES)
    if not header:
        return False
    if len(header) < _HEADER_BYTES or header[:4] != b"OggS":
        raise ValueError(f"no Ogg page at byte {start}")
    segments = file.read(header[26])
    length = _HEADER_BYTES + len(segments) + sum(segments)
    new = serial.to_bytes(4, "little")
    difference = int.from_bytes(new, "big") ^ int.from_bytes(header[_SERIAL_AT : _SERIAL_AT + 4], "big")
    # Append 32 zero bits (the remainder's width) and the bytes that follow the serial.
    change = _multiply(difference, _power_of_x(32 + 8 * (length - _SERIAL_AT - 4)))
    checksum = int.from_bytes(header[_CHECKSUM_AT : _CHECKSUM_AT + 4], "little") ^ change
    file.seek(start + _SERIAL_AT)
    file.write(new)
    file.seek(start + _CHECKSUM_AT)
    file.write(checksum.to_bytes(4, "little"))
    file.seek(start + length)
    return True


def _multiply(a: int, b: int) -> int:
    """Product of two polynomials over GF(2), modulo the checksum's."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a >> 32:
            a ^= _POLYNOMIAL
        b >>= 1
    return product


def _power_of_x(exponent: int) -> int:
    """x to the ``exponent``, modulo the checksum's polynomial."""
    result, square = 1, 2
    while exponent:
        if exponent & 1:
            result = _multiply(result, square)
        square = _multiply(square, square)
        exponent >>= 1
    return result
