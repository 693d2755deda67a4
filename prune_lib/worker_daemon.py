"""PySpark's daemon, which forks the Python workers, without what costs every task a tenth of a second.

    spark.python.daemon.module=prune_lib.worker_daemon

Three things that PySpark 3.5 has a worker do for each task, however small, and what is done about them here:

* Python is to forget what it knows of the folders of `sys.path`. CPython 3.11 reads the whole list of every
  zip archive there at once, used or not: PySpark's own two, and Spark's jar with its thousands of classes. An
  archive that is as it was is not read again.
* Garbage is collected after the task, which looks at every object of every module that is loaded. What one
  collection has left is not looked at by the next ones (`gc.freeze`): modules and caches stay anyway. What a
  task leaves and lets go later is still freed, unless it is part of a cycle.
* The JVM sends a task in two small packets, and the second waits until the first is acknowledged, which Linux
  puts off for 40 ms in the hope of an answer to send it with. It is acknowledged at once.

`get_spark` asks for it where the workers are this machine's and run this Python.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import types
import zipimport
from typing import Any

import pyspark.daemon

# Untyped.
daemon: Any = pyspark.daemon

__all__ = ["acknowledge_at_once", "keep_what_was_collected", "remember_archives"]


def remember_archives() -> None:
    """From now on, an import cache that is invalidated keeps the list of an archive that has not changed."""
    read_again = zipimport.zipimporter.invalidate_caches
    known: dict[str, tuple[int, int]] = {}

    def invalidate_caches(self: Any) -> None:
        try:
            found = os.stat(self.archive)
        except OSError:
            read_again(self)
            return
        state = (found.st_mtime_ns, found.st_size)
        if known.get(self.archive) != state:
            read_again(self)
            known[self.archive] = state

    zipimport.zipimporter.invalidate_caches = invalidate_caches  # type: ignore[method-assign]


def keep_what_was_collected() -> None:
    """From now on, what the workers' own collections leave is not looked at again."""

    def collect() -> None:
        gc.collect()
        gc.freeze()

    daemon.gc = types.SimpleNamespace(collect=collect)


def acknowledge_at_once() -> None:
    """From now on, the JVM's first packet of a task is acknowledged when it comes; Linux only."""
    work = daemon.worker

    def worker(sock: socket.socket, authenticated: bool) -> int:
        quickly = getattr(socket, "TCP_QUICKACK", None)
        if quickly is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            # Linux forgets it after some packets, so for each task anew.
            sock.setsockopt(socket.IPPROTO_TCP, quickly, 1)
        return int(work(sock, authenticated))

    daemon.worker = worker


if __name__ == "__main__":
    remember_archives()
    keep_what_was_collected()
    acknowledge_at_once()
    # Workers are forked from this process, and know what it knows.
    importlib.invalidate_caches()
    gc.freeze()
    daemon.manager()
