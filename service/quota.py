"""How much one caller may ask for."""

from __future__ import annotations

from dataclasses import dataclass

UNLIMITED = "none"


@dataclass(frozen=True)
class Quota:
    """What one caller may do.

    Attributes:
        per_minute: requests in any sixty seconds.
        burst: of them in any one second.
        at_once: requests inside at the same time.
    """

    per_minute: int
    burst: int
    at_once: int

    @classmethod
    def parse(cls, text: str) -> Quota | None:
        """Read ``per_minute/burst/at_once`` or ``none``.

        Raises:
            ValueError: it is neither.
        """
        if text == UNLIMITED:
            return None
        parts = text.split("/")
        if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
            raise ValueError("a quota is requests a minute/in a second/at once, such as 60/10/4, or none")
        return cls(*map(int, parts))
