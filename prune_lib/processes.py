"""What the processes that this project starts have in common."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["Hold", "end_with_parent"]


def end_with_parent() -> None:
    """End this process within a second or so of its parent's end, however that ended.

    Without it a child of a killed run would go on with work that nobody waits for.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class Hold:
    """A mark in a folder that the process which works on it is alive: a lock that ends with it."""

    _NAME = "held"

    def __init__(self, folder: Path) -> None:
        self._file = (folder / self._NAME).open("w", encoding="utf-8")
        self._file.write(socket.gethostname())
        self._file.flush()
        # Some file systems of networks have no locks: then nobody can tell, and age decides.
        with suppress(OSError):
            _lock(self._file.fileno())

    def release(self) -> None:
        """Give it up; the folder may be gone by then."""
        self._file.close()

    @classmethod
    def left(cls, folder: Path) -> bool:
        """Whether a process of this machine worked on a folder and is gone; False where nobody can tell."""
        try:
            with (folder / cls._NAME).open("r+", encoding="utf-8") as file:
                # Locks need not reach from one machine to another.
                if file.read() != socket.gethostname():
                    return False
                _lock(file.fileno())
                return True
        except OSError:
            return False


def _lock(descriptor: int) -> None:
    """Take the lock of a file, or raise OSError."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
