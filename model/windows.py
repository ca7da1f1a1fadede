"""Windows of one length over a recording of any length, for an audio tower that takes no other. Standard library only:
training cuts waveforms in torch by this rule, the service in numpy."""

from __future__ import annotations


def window_starts(n_samples: int, length: int) -> list[int]:
    """First samples of as few windows of ``length`` as cover ``n_samples``, evenly spread, the last one ending with it.

    One window, at 0, where the recording is no longer than a window: :func:`repeats` fills it.
    """
    count = max(1, -(-n_samples // length))
    return [round(index * (n_samples - length) / (count - 1)) for index in range(count)] if count > 1 else [0]


def repeats(n_samples: int, length: int) -> int:
    """How often a recording is laid end to end in a window, whole; zeros fill the rest ("repeatpad" of LAION-CLAP).

    Raises:
        ValueError: there is no sample to repeat.
    """
    if n_samples < 1:
        raise ValueError(f"at least one sample is needed, got {n_samples}")
    return max(1, length // n_samples)
