"""What our daemon for Python workers does not do again for every task; in processes that it may change."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

_ARCHIVES = """
import importlib, sys, zipfile, zipimport
from prune_lib.worker_daemon import remember_archives

archive = sys.argv[1]
with zipfile.ZipFile(archive, "w") as out:
    out.writestr("first_of_it.py", "")
sys.path.insert(0, archive)
import first_of_it

read = []
original = zipimport._read_directory
zipimport._read_directory = lambda path: (read.append(path), original(path))[1]
remember_archives()
for _ in range(3):
    importlib.invalidate_caches()
    import first_of_it
assert read.count(archive) <= 1, read
with zipfile.ZipFile(archive, "a") as out:
    out.writestr("second_of_it.py", "")
importlib.invalidate_caches()
import second_of_it
"""

_GARBAGE = """
import gc, weakref
from pyspark import daemon
from prune_lib.worker_daemon import keep_what_was_collected

class Ring:
    def __init__(self):
        self.me = self

keep_what_was_collected()
gone = weakref.ref(Ring())
daemon.gc.collect()
assert gone() is None and gc.get_freeze_count() > 1000 and len(gc.get_objects()) < 1000
"""


_PACKETS = """
import socket
from pyspark import daemon
from prune_lib.worker_daemon import acknowledge_at_once

level, option = socket.IPPROTO_TCP, socket.TCP_QUICKACK
daemon.worker = lambda sock, authenticated: (sock.getsockopt(level, option), authenticated)[0]
acknowledge_at_once()
server = socket.create_server(("127.0.0.1", 0))
sock = socket.create_connection(server.getsockname())
sock.setsockopt(level, option, 0)
assert sock.getsockopt(level, option) == 0
assert daemon.worker(sock, True) == 1, "the first packet is acknowledged at once"
"""


def run(code: str, *flags: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_an_archive_is_read_again_only_where_it_has_changed(tmp_path: Path) -> None:
    run(_ARCHIVES, str(tmp_path / "some.zip"))


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux puts acknowledgements off so")
def test_the_first_packet_of_a_task_is_acknowledged_at_once() -> None:
    run(_PACKETS)


def test_garbage_goes_and_what_stays_is_not_looked_at_again() -> None:
    run(_GARBAGE)
