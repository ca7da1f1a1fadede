"""M4A and WebM, which libsndfile cannot read: a child process that becomes ffmpeg, where there is one."""

from __future__ import annotations

import os
from socket import socket
from typing import Any

from service.landlock import forbid_writing
from service.sandbox import drop_capabilities

# Of the demuxers that ffmpeg has, those that are let near a caller's file, by the kind that its first bytes say.
DEMUXERS = {"M4A": "mov", "WEBM": "matroska"}


def become_ffmpeg(arguments: dict[str, Any], files: list[int], link: socket) -> dict[str, Any]:
    """The job of a child: decode the first audio stream of the upload into an RF64 file of float32; returns never.

    The demuxer is named, so that a playlist in disguise is not followed, and only files may be opened. One second over
    the limit is decoded, so that what is too long is seen to be. (Not Wave64: libsndfile takes ffmpeg's floats in it
    for integers.)
    """
    upload, out = files
    forbid_writing(out)
    drop_capabilities()
    for descriptor in files:
        os.set_inheritable(descriptor, True)
    command = [
        *("ffmpeg", "-nostdin", "-v", "quiet", "-y", "-threads", "1"),
        *("-protocol_whitelist", "file", "-f", DEMUXERS[arguments["container"]], "-i", f"file:/dev/fd/{upload}"),
        *("-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1"),
        *("-t", str(arguments["max_audio_s"] + 1), "-fs", str(arguments["max_bytes"])),
        *("-c:a", "pcm_f32le", "-threads", "1", "-f", "wav", "-rf64", "always", f"file:/dev/fd/{out}"),
    ]
    os.execv(arguments["program"], command)
