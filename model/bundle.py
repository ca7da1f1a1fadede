"""A bundle: the directory that training hands to the service.

    manifest.json     every number of the model, the SHA-256 of every other file
    separator.onnx    bands and prompts to masks
    text.onnx         token ids to token features and one unit vector
    tokenizer.json    phrases to token ids
    audio.onnx        bands, or a waveform of one length, to one unit vector, for presence
    README.md         the model card

The service reads every number from here and keeps no copy of any.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from model.calibration import Calibration
from model.spec import EmbedderSpec, NetworkSpec, SignalSpec

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
FILES = ("separator.onnx", "text.onnx", "tokenizer.json", "audio.onnx", "README.md")
KEYS = (
    "format_version",
    "name",
    "created",
    "git_commit",
    "signal",
    "network",
    "embedder",
    "files",
    "tensors",
    "training_data",
    "evaluation",
)
LATER = ("presence",)  # what a manifest may have: fitted to a bundle that is there


class BundleError(ValueError):
    """A bundle that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: its directory.
        manifest: ``manifest.json`` as it is.
        signal, network, embedder: the specs in it.
        version: first 12 hexadecimal digits of the manifest's SHA-256, which covers every other file's.
        calibration: of presence; None where nobody has fitted one.
    """

    path: Path
    manifest: dict[str, Any]
    signal: SignalSpec
    network: NetworkSpec
    embedder: EmbedderSpec
    version: str
    calibration: Calibration | None = None

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> Self:
        """Read the manifest and, unless told otherwise, compare every file with its hash.

        Raises:
            BundleError: a file is missing, is not the one the manifest means, or lies outside the directory; or the
                manifest is of another format version or has a key too many or too few.
        """
        path = Path(path)
        try:
            content = (path / MANIFEST).read_bytes()
        except OSError as error:
            raise BundleError(f"{path / MANIFEST}: {error.strerror}; is {path} a bundle?") from error
        manifest = _read_manifest(path / MANIFEST, content)
        for name, expected in manifest["files"].items():
            _check_file(path, name, expected, verify=verify)
        try:
            signal = SignalSpec.from_json(manifest["signal"])
            network = NetworkSpec.from_json(manifest["network"])
            embedder = EmbedderSpec.from_json(manifest["embedder"])
            calibration = Calibration.from_json(manifest["presence"]) if "presence" in manifest else None
        except (TypeError, ValueError) as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from error
        if network.embedding_features != embedder.embedding_features:
            raise BundleError(
                f"{path / MANIFEST}: the network takes {network.embedding_features} embedding features, "
                f"the embedder gives {embedder.embedding_features}"
            )
        if network.conditioning == "attention" and network.token_features != embedder.token_features:
            raise BundleError(
                f"{path / MANIFEST}: the network attends to tokens of {network.token_features} features, "
                f"the embedder gives {embedder.token_features}"
            )
        version = hashlib.sha256(content).hexdigest()[:12]
        return cls(path, manifest, signal, network, embedder, version, calibration)

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files."""
        return self.path / name


def _read_manifest(path: Path, content: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{path}: must hold an object, got {type(manifest).__name__}")
    if manifest.get("format_version") != FORMAT_VERSION:  # before the keys: another version may well have others
        raise BundleError(f"{path}: format_version must be {FORMAT_VERSION}, got {manifest.get('format_version')!r}")
    unknown, missing = sorted(set(manifest) - {*KEYS, *LATER}), sorted(set(KEYS) - set(manifest))
    if unknown or missing:
        raise BundleError(f"{path}: unknown keys {unknown}, missing keys {missing}")
    for key in ("signal", "network", "embedder", "files", "tensors", "evaluation"):
        if not isinstance(manifest[key], dict):
            raise BundleError(f"{path}: {key} must be an object, got {type(manifest[key]).__name__}")
    absent = [name for name in FILES if name not in manifest["files"]]
    if absent:
        raise BundleError(f"{path}: files must list {absent}")
    return manifest


def _check_file(folder: Path, name: str, expected: Any, *, verify: bool) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or Path(name).is_absolute():
        raise BundleError(f"{folder / MANIFEST}: file {name!r} lies outside the bundle")
    if not isinstance(expected, dict) or set(expected) != {"sha256", "bytes"}:
        raise BundleError(f"{folder / MANIFEST}: file {name!r} must have sha256 and bytes, got {expected!r}")
    if not path.is_file():
        raise BundleError(f"{path}: missing")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise BundleError(f"{path}: must have {expected['bytes']} bytes, has {size}")
    if verify and (found := sha256(path)) != expected["sha256"]:
        raise BundleError(f"{path}: SHA-256 must be {expected['sha256']}, is {found}")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bundle(
    path: Path,
    files: Path,
    *,
    name: str,
    created: str,
    git_commit: str,
    signal: SignalSpec,
    network: NetworkSpec,
    embedder: EmbedderSpec,
    tensors: Mapping[str, Any],
    training_data: list[dict[str, Any]],
    evaluation: Mapping[str, Any],
) -> Bundle:
    """Write a bundle at ``path``: beside it first, opened and verified there, then put in place.

    Args:
        path: the bundle's directory; one that is there is replaced, if it is a bundle or empty.
        files: a directory with all of ``FILES``.
        name: of the model.
        created: date and time, ISO 8601.
        git_commit: of the code that trained and exported it.
        signal, network, embedder: the specs.
        tensors: of each graph its inputs and outputs, each a list of axes: numbers, or names where dynamic.
        training_data: objects with ``name``, ``licence`` and ``clips``.
        evaluation: figures, as the evaluation wrote them.

    Raises:
        BundleError: a file is missing, or what is at ``path`` is something else.
    """
    path = Path(path)
    if path.exists() and not (path / MANIFEST).is_file() and any(path.iterdir()):
        raise BundleError(f"{path}: exists and is no bundle; it is not replaced")
    missing = [file for file in FILES if not (files / file).is_file()]
    if missing:
        raise BundleError(f"{files}: lacks {missing}")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for file in FILES:
            shutil.copyfile(files / file, fresh / file)
        manifest = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "created": created,
            "git_commit": git_commit,
            "signal": signal.to_json(),
            "network": network.to_json(),
            "embedder": embedder.to_json(),
            "files": {file: {"sha256": sha256(fresh / file), "bytes": (fresh / file).stat().st_size} for file in FILES},
            "tensors": dict(tensors),
            "training_data": training_data,
            "evaluation": dict(evaluation),
        }
        _write_manifest(fresh / MANIFEST, manifest)
        Bundle.open(fresh)
        fresh.chmod(0o755)  # mkdtemp keeps others out
        _replace(path, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Bundle.open(path)


def calibrate(path: Path | str, calibration: Calibration | None) -> Bundle:
    """Put a calibration into the manifest of a bundle, or take it out; no other file changes, the version does.

    Raises:
        BundleError: what is at ``path`` cannot be used.
    """
    bundle = Bundle.open(path)
    manifest = {key: value for key, value in bundle.manifest.items() if key != "presence"}
    if calibration is not None:
        manifest["presence"] = calibration.to_json()
    partial = bundle.file(f"{MANIFEST}.partial")
    _write_manifest(partial, manifest)
    partial.replace(bundle.file(MANIFEST))
    return Bundle.open(path)


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _replace(path: Path, fresh: Path) -> None:
    """Put ``fresh`` at ``path``; a directory cannot be renamed over a full one, so the old one steps aside first."""
    if not path.exists():
        fresh.rename(path)
        return
    aside = fresh.with_name(fresh.name + "-old")
    path.rename(aside)
    try:
        fresh.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside)
