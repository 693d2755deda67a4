"""A child that watches its parent ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prune_lib import processes
from prune_lib.processes import Hold

_CHILD = "import time; from prune_lib.processes import end_with_parent; end_with_parent(); time.sleep(60)"
_PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {_CHILD!r}])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks a process up in /proc")
def test_a_child_ends_with_a_parent_that_was_killed():
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True, env=environ)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(2.0)  # the child has begun to watch
    assert _runs(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        if not _runs(child):
            break
        time.sleep(0.1)
    assert not _runs(child)


_HOLDER = """
import sys, time
from pathlib import Path
from prune_lib.processes import Hold
hold = Hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_what_a_process_that_is_gone_held_is_left(tmp_path: Path) -> None:
    assert not Hold.left(tmp_path), "nobody held it"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert not Hold.left(tmp_path)
    holder.kill()
    holder.wait()
    assert Hold.left(tmp_path)
    (tmp_path / "held").write_text("another-machine")
    assert not Hold.left(tmp_path), "of another machine this one cannot tell"


def test_what_this_process_holds_is_left_when_it_lets_go(tmp_path: Path) -> None:
    hold = Hold(tmp_path)
    assert not Hold.left(tmp_path)
    hold.release()
    assert Hold.left(tmp_path)


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    hold = Hold.take(tmp_path)
    assert hold is not None
    assert Hold.take(tmp_path) is None and not Hold.left(tmp_path), "neither one took it away"
    with pytest.raises(BlockingIOError):
        Hold(tmp_path)
    hold.release()
    again = Hold.take(tmp_path)
    assert again is not None
    again.release()
    assert Hold.take(tmp_path / "gone") is None


def test_a_folder_that_was_removed_under_the_hand_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = processes._lock

    def late(descriptor: int) -> None:
        (tmp_path / "held").unlink()
        (tmp_path / "held").touch()
        lock(descriptor)

    monkeypatch.setattr(processes, "_lock", late)
    assert Hold.take(tmp_path) is None


def test_where_there_are_no_locks_everybody_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(processes, "_lock", none)
    assert Hold.take(tmp_path) is not None and Hold.take(tmp_path) is not None
    assert not Hold.left(tmp_path)


def _runs(pid: int) -> bool:
    """Whether a process is there and is no zombie that nobody has asked for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
