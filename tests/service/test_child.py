"""Children: what they may do, what their end costs, and that they end. Faults are in tests.service.faults."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import landlock, nursery
from service.child import Child, ChildDied
from service.errors import Abandoned, ChildError, StartError
from service.nursery import Nursery
from service.sandbox import ChildLimits
from tests.service.conftest import PATIENCE_S

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
GENEROUS = ChildLimits(memory_bytes=256 * MIB, cpu_s=60, wall_s=PATIENCE_S, file_bytes=MIB)


@pytest.fixture(scope="module")
def shared_nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    nursery.warm_up()
    yield nursery
    nursery.close()


@pytest.fixture
def children(shared_nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a child on a fault, with an input and an output file."""
    started = []

    def start(fault: str, limits: ChildLimits = GENEROUS, **arguments: object) -> Child:
        with (tmp_path / "in").open("w+b") as first, (tmp_path / "out").open("w+b") as second:
            files = [first.fileno(), second.fileno()]
            child = shared_nursery.start(f"tests.service.faults:{fault}", arguments, files, limits, work="test")
        started.append(child)
        return child

    yield start
    for child in started:
        child.close()


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pid_of(nursery: Nursery) -> int:
    """Id of the process that forks."""
    assert nursery.process is not None
    return nursery.process.pid


FAULTS = {
    "segfault": ("crash", GENEROUS),
    "take_memory": ("memory", GENEROUS),
    "spin": ("cpu", ChildLimits(64 * MIB, 1, PATIENCE_S, MIB)),
    "sleep": ("wall", ChildLimits(64 * MIB, 60, 0.5, MIB)),
    "write_for_ever": ("size", GENEROUS),
    "leak_descriptors": ("files", GENEROUS),
    "fail": ("exception", GENEROUS),
    "be_killed": ("killed", GENEROUS),
    "answer_without_end": ("exception", GENEROUS),
    "answer_no_json": ("exception", GENEROUS),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_counted(
    children: Callable[..., Child], shared_nursery: Nursery, tmp_path: Path, fault: str
) -> None:
    reason, limits = FAULTS[fault]
    before = shared_nursery.killed["test", reason]
    child = children(fault, limits)
    with pytest.raises(ChildDied) as died:
        child.result(lambda: None)
    assert died.value.reason == reason
    assert shared_nursery.killed["test", reason] == before + 1
    assert (tmp_path / "out").stat().st_size <= limits.file_bytes
    shared_nursery.warm_up()


def test_a_child_sees_nothing_of_ours(children: Callable[..., Child], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WINNOW_REDIS_URL", "redis://:secret@127.0.0.1/0")
    (tmp_path / "keys").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = children("look_around", path=str(tmp_path / "keys"), port=server.getsockname()[1])
        found = child.result(lambda: None)
    assert not [name for name in found["environment"] if name.startswith("WINNOW")]
    assert len(found["open"]) == 3 + 1 + 2  # nothing, its link, its files
    if landlock.supported():
        assert (found["read"], found["write"]) == ("PermissionError", "PermissionError")
    assert found["connect"] in {"PermissionError", "OSError", "ConnectionRefusedError"}
    assert not (tmp_path / "keys.new").exists()


def test_what_a_child_started_ends_with_it(children: Callable[..., Child], tmp_path: Path) -> None:
    child = children("have_children")
    out = tmp_path / "out"
    wait_until(lambda: out.read_text().endswith("\n"))
    pids = [int(pid) for pid in out.read_text().split()]
    assert all(is_alive(pid) for pid in pids)
    child.close()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_an_abandoned_child_dies(children: Callable[..., Child], tmp_path: Path) -> None:
    child = children("have_children")
    out = tmp_path / "out"
    wait_until(lambda: out.read_text().endswith("\n"))
    gone = threading.Event()

    def check() -> None:
        if gone.is_set():
            raise Abandoned

    threading.Timer(0.2, gone.set).start()
    with pytest.raises(Abandoned), contextlib.closing(child):
        child.result(check)
    wait_until(lambda: not is_alive(int(out.read_text().split()[0])))


def test_many_threads_have_children_of_their_own(shared_nursery: Nursery) -> None:
    outcomes: list[str] = []

    def work(fault: str) -> None:
        child = shared_nursery.start(f"tests.service.faults:{fault}", {}, [], GENEROUS, work="threads")
        with contextlib.closing(child):
            try:
                outcomes.append(str(child.result(lambda: None)["n_samples"]))
            except ChildDied as error:
                outcomes.append(error.reason)

    threads = [threading.Thread(target=work, args=(fault,)) for fault in ["lie", "segfault", "fail"] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(outcomes) == ["1000"] * 8 + ["crash"] * 8 + ["exception"] * 8


def test_the_forking_process_may_be_killed() -> None:
    nursery = Nursery()
    nursery.warm_up()
    first = pid_of(nursery)
    child = nursery.start("tests.service.faults:sleep", {}, [], GENEROUS, work="test")
    os.kill(first, signal.SIGKILL)
    with pytest.raises(ChildDied, match="lost"):
        child.result(lambda: None)
    child.close()
    wait_until(lambda: _starts(nursery))
    assert pid_of(nursery) != first
    nursery.close()


def test_the_forking_process_may_be_killed_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was sent is lost with it, and is sent again to the next."""
    children = Nursery()
    children.warm_up()
    first = children.process
    assert first is not None
    os.kill(first.pid, signal.SIGSTOP)
    send_fds = socket.send_fds

    def send_and_kill(control: socket.socket, *message: Any) -> int:
        sent = send_fds(control, *message)
        first.kill()
        first.wait(PATIENCE_S)
        return sent

    monkeypatch.setattr(nursery.socket, "send_fds", send_and_kill)
    try:
        with contextlib.closing(children.start("service.forkserver:ping", {}, [], GENEROUS, work="test")) as child:
            assert child.result(lambda: None)
        assert pid_of(children) != first.pid
    finally:
        children.close()


def _starts(nursery: Nursery) -> bool:
    try:
        nursery.warm_up()
    except StartError:
        return False
    return True


def test_a_nursery_that_is_closed_gives_no_more() -> None:
    nursery = Nursery()
    nursery.warm_up()
    pid = pid_of(nursery)
    nursery.close()
    assert not is_alive(pid)
    with pytest.raises(ChildError):
        nursery.start("service.forkserver:ping", {}, [], GENEROUS, work="test")


def test_children_die_with_the_service(tmp_path: Path) -> None:
    """Even when it is killed: nobody is left to tell them."""
    out = tmp_path / "out"
    code = (
        "import sys, time\n"
        "from service.nursery import Nursery\n"
        "from service.sandbox import ChildLimits\n"
        "nursery = Nursery()\n"
        "out = open(sys.argv[1], 'wb')\n"
        "limits = ChildLimits(2**28, 60, 600, 2**20)\n"
        "child = nursery.start('tests.service.faults:have_children', {}, [0, out.fileno()], limits, work='test')\n"
        "print(nursery.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(out)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline())]
        wait_until(lambda: out.exists() and out.read_text().endswith("\n"))
        pids += [int(pid) for pid in out.read_text().split()]
        assert all(is_alive(pid) for pid in pids)
        process.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_where_children_cannot_be_had_the_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery.sys, "executable", "/nowhere/python")
    with pytest.raises(StartError, match="decoded in children"):
        Nursery().warm_up()
