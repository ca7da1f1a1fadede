"""Manifests of captioned recordings.

``python -m training.prepare audiocaps ROOT --out audiocaps.jsonl`` reads a published layout;
``python -m training.prepare join A.jsonl B.jsonl --out C.jsonl --against TEST.jsonl`` joins manifests by source.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.prepare import audiocaps, clotho, esc50, fsd50k, music, vggsound
from training.prepare.join import join
from training.recording_manifest import read_recordings, write_recordings

LAYOUTS = {
    "audiocaps": audiocaps.collect,
    "clotho": clotho.collect,
    "vggsound": vggsound.collect,
    "music": music.collect,
    "fsd50k": fsd50k.collect,
    "esc50": esc50.collect,
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for data that are not as the layout says."""
    options = _parser().parse_args(arguments)
    try:
        if options.layout == "join":
            print(_join(options.manifests, options.against, options.out))
        else:
            print(_collect(options.layout, options.root, options.out))
    except ValueError as error:
        print(f"training.prepare: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    layouts = parser.add_subparsers(dest="layout", required=True)
    for name in LAYOUTS:
        layout = layouts.add_parser(name, help=f"a manifest of {name}")
        layout.add_argument("root", type=Path, help="the data set's folder, with its tables and audio")
        layout.add_argument("--out", type=Path, required=True, help="manifest to write")
    joined = layouts.add_parser("join", help="one manifest of several, each source once")
    joined.add_argument("manifests", nargs="+", help="manifests, MANIFEST#train for a split of one")
    joined.add_argument("--against", nargs="*", default=[], help="manifests that are tested on")
    joined.add_argument("--out", type=Path, required=True, help="manifest to write")
    return parser


def _collect(layout: str, root: Path, out: Path) -> str:
    collected = LAYOUTS[layout](root)
    if not collected.recordings:
        raise ValueError(f"{root}: all of the {len(set(collected.missing))} listed files are missing")
    write_recordings(out, collected.recordings)
    return f"{collected.report(layout)}: {out}"


def _join(manifests: list[str], against: list[str], out: Path) -> str:
    tested = [recording for path in against for recording in read_recordings(Path(path))]
    joined = join([read_recordings(Path(path)) for path in manifests], tested)
    write_recordings(out, joined.recordings)
    return (
        f"{len(joined.recordings)} recordings kept; {joined.n_tested} dropped that are tested on, "
        f"{joined.n_shared} dropped whose source an earlier manifest has: {out}"
    )


if __name__ == "__main__":
    sys.exit(main())
