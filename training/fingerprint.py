"""What decides the rows of an evaluation, in one hash: rows made with anything else are not gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("model/*.py", "training/cases.py", "training/metrics.py", "training/mixing.py", "training/oracle.py",
        "training/score.py", "training/separators.py")  # fmt: skip


def of_code() -> str:
    """Hash of the code that separates and scores."""
    return of_files(path for pattern in CODE for path in ROOT.glob(pattern))


def of_model(path: Path) -> str:
    """Hash of a bundle (its manifest, which has the hashes of the rest), an embedder's folder, or a file.

    Raises:
        ValueError: nothing is there.
    """
    if not path.exists():
        raise ValueError(f"no model {path}")
    if path.is_dir():
        manifest = path / "manifest.json"
        return of_files([manifest] if manifest.is_file() else [inner for inner in path.iterdir() if inner.is_file()])
    return of_files([path])


def of_folder(path: Path) -> str:
    """Hash of the names, sizes and times of a folder's files: its audio is not read twice."""
    stats = [(inner, inner.stat()) for inner in sorted(path.rglob("*")) if inner.is_file()]
    lines = [f"{inner.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}" for inner, stat in stats]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def of_files(paths: Iterable[Path]) -> str:
    """Hash of files' names and contents, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
