from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from model.bundle import FILES, Bundle, BundleError, write_bundle
from model.spec import EmbedderSpec, NetworkSpec, SignalSpec

FIGURES: dict[str, Any] = {
    "name": "winnow",
    "created": "2026-01-01T00:00:00+00:00",
    "git_commit": "abc",
    "signal": SignalSpec(),
    "network": NetworkSpec(),
    "embedder": EmbedderSpec(),
    "tensors": {},
    "training_data": [],
    "evaluation": {"sdri_db": 8.5},
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(f"content of {name}")
    return folder


@pytest.fixture
def made(tmp_path: Path, files: Path) -> Path:
    return write_bundle(tmp_path / "bundle", files, **FIGURES).path


def rewrite(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.update(changes)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_written_is_read(made: Path) -> None:
    bundle = Bundle.open(made)
    assert (bundle.signal, bundle.network, bundle.embedder) == (SignalSpec(), NetworkSpec(), EmbedderSpec())
    assert bundle.manifest["evaluation"] == {"sdri_db": 8.5}
    assert bundle.file("text.onnx").read_text() == "content of text.onnx"
    assert bundle.version == hashlib.sha256((made / "manifest.json").read_bytes()).hexdigest()[:12]
    assert {path.name for path in made.iterdir()} == {*FILES, "manifest.json"}


def test_the_same_files_make_the_same_version(tmp_path: Path, files: Path, made: Path) -> None:
    again = write_bundle(tmp_path / "again", files, **FIGURES)
    assert again.version == Bundle.open(made).version
    other = write_bundle(tmp_path / "other", files, **{**FIGURES, "evaluation": {}})
    assert other.version != again.version


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(made: Path, name: str) -> None:
    (made / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing"):
        Bundle.open(made)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(made: Path, name: str) -> None:
    content = (made / name).read_text()
    (made / name).write_text(content.replace("content", "Content"))
    with pytest.raises(BundleError, match=f"{name}: SHA-256 must be"):
        Bundle.open(made)
    Bundle.open(made, verify=False)


def test_a_truncated_file_is_found_without_hashing(made: Path) -> None:
    (made / "separator.onnx").write_text("cont")
    with pytest.raises(BundleError, match=r"separator.onnx: must have 25 bytes, has 4"):
        Bundle.open(made, verify=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version must be 1, got 2"),
        ({"format_version": None}, "format_version must be 1, got None"),
        ({"surprise": 1}, r"unknown keys \['surprise'\]"),
        ({"files": {}}, "files must list"),
        ({"signal": {}}, "SignalSpec: unknown keys"),
        ({"signal": []}, "signal must be an object"),
        ({"network": {**NetworkSpec().to_json(), "kind": "other"}}, "kind must be"),
        ({"embedder": {**EmbedderSpec().to_json(), "embedding_features": 5}}, "384 embedding features"),
    ],
)
def test_a_wrong_manifest_is_told_why(made: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(made, **changes)
    with pytest.raises(BundleError, match=message):
        Bundle.open(made)


def test_a_missing_key_is_named(made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    del manifest["tensors"]
    (made / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"missing keys \['tensors'\]"):
        Bundle.open(made)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret"])
def test_files_outside_the_bundle_are_refused(made: Path, name: str) -> None:
    (made.parent / "secret").write_text("x")
    files = json.loads((made / "manifest.json").read_text())["files"]
    rewrite(made, files={**files, name: {"sha256": "0", "bytes": 1}})
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(made)


def test_a_link_that_leads_out_is_refused(made: Path) -> None:
    outside = made.parent / "outside.onnx"
    shutil.copyfile(made / "text.onnx", outside)
    (made / "text.onnx").unlink()
    (made / "text.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(made)


@pytest.mark.parametrize("content", ["", "not json", "[]", "\udcff"])
def test_a_manifest_that_is_no_object_is_told_so(made: Path, content: str) -> None:
    (made / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(made)


def test_a_folder_that_is_no_bundle_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is .* a bundle"):
        Bundle.open(tmp_path / "nowhere")


def test_writing_replaces_a_bundle_and_nothing_else(tmp_path: Path, files: Path, made: Path) -> None:
    write_bundle(made, files, **{**FIGURES, "name": "second"})
    assert Bundle.open(made).manifest["name"] == "second"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    with pytest.raises(BundleError, match="is no bundle"):
        write_bundle(precious, files, **FIGURES)
    assert (precious / "thesis.txt").read_text() == "years"


def test_a_failure_leaves_no_trace(tmp_path: Path, files: Path, made: Path) -> None:
    version = Bundle.open(made).version
    with pytest.raises(BundleError, match="embedding features"):
        write_bundle(made, files, **{**FIGURES, "embedder": EmbedderSpec(embedding_features=3)})
    (files / "audio.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks \['audio.onnx'\]"):
        write_bundle(made, files, **FIGURES)
    assert Bundle.open(made).version == version
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "files"]
