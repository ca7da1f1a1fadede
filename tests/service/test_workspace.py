from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from service.errors import StorageFull
from service.workspace import Workspace, remove_leftovers, require_room
from tests.service.sounds import encode, noise

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


def somebody_elses(folder: Path) -> subprocess.Popen[bytes]:
    """A process with a workspace in ``folder``."""
    code = (
        "import sys, tempfile, time\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "from service.workspace import Workspace\n"
        "workspace = Workspace()\n"
        "(workspace.path / 'recording.f32').write_bytes(b'x')\n"
        "print(workspace.path, flush=True)\n"
        "time.sleep(600)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)


def test_what_a_killed_process_left_is_removed_and_nothing_else(temp_folder: Path) -> None:
    with somebody_elses(temp_folder) as dead, somebody_elses(temp_folder) as alive, Workspace() as own:
        assert dead.stdout is not None and alive.stdout is not None
        left, used = (Path(process.stdout.readline().decode().strip()) for process in (dead, alive) if process.stdout)
        others = [temp_folder / name for name in ("winnow-notes", "something-1-else", "winnow-12-file")]
        others[0].mkdir()
        others[1].mkdir()
        others[2].write_text("not a folder")
        (temp_folder / "winnow-12-link").symlink_to(others[1])
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert left.is_dir()
        assert remove_leftovers() == 1
        assert not left.exists()
        assert (used / "recording.f32").read_bytes() == b"x"
        assert own.path.is_dir()
        assert all(path.exists() for path in others)
        alive.send_signal(signal.SIGKILL)
        alive.wait()
        assert remove_leftovers() == 1
    for path in temp_folder.iterdir():
        path.unlink() if not path.is_dir() or path.is_symlink() else path.rmdir()


def test_a_service_cleans_up_when_it_starts(temp_folder: Path, start) -> None:
    with somebody_elses(temp_folder) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().decode().strip())
        process.kill()
        process.wait()
    start()
    assert not left.exists()


def test_workspaces_are_many_and_their_own() -> None:
    with Workspace() as first, Workspace() as second:
        assert first.path != second.path
        assert remove_leftovers() == 0
        first.close()
        first.close()
        assert second.path.is_dir()


def test_little_room_is_refused_until_there_is_more(start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start(min_free_bytes=10_000_000)
    sound = encode(noise(1_600))
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 5_000_000, 5_000_000))
    response = running.separate(sound)
    assert (response.status_code, response.json()["type"]) == (503, "/problems/storage-full")
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["limit"] == 10_000_000
    monkeypatch.setattr(shutil, "disk_usage", real)
    assert running.separate(sound).status_code == 200


def test_a_folder_that_cannot_be_made_is_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(prefix: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(StorageFull):
        Workspace()
    require_room(0)


def test_a_disk_that_fills_up_while_a_file_comes(start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start()
    sound = encode(noise(1_000_000, 2))
    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: io.FileIO("/dev/full", "r+"))
    response = running.separate(sound)
    assert (response.status_code, response.json()["type"]) == (503, "/problems/storage-full")
    monkeypatch.setattr(tempfile, "TemporaryFile", real)
    assert running.separate(encode(noise(1_600))).status_code == 200
