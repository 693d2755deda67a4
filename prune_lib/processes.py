"""What the processes that this project starts have in common."""

from __future__ import annotations

import os
import socket
import threading
import time
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
        """Hold a folder.

        Raises:
            BlockingIOError: a process that is alive holds it.
            FileNotFoundError: it is not there, or is gone by now.
        """
        place = folder / self._NAME
        # Not "a": the folders of Databricks' volumes refuse to append to a file.
        self._file = os.fdopen(os.open(place, os.O_RDWR | os.O_CREAT, 0o666), "w", encoding="utf-8")
        try:
            _lock_if_any(self._file.fileno())
            # One who removed the folder held it until then: this lock can be of a file that is in no folder.
            if not os.path.samestat(os.fstat(self._file.fileno()), place.stat()):
                raise FileNotFoundError(f"{folder} was removed, and is there anew")
        except OSError:
            self._file.close()
            raise
        self._file.truncate(0)
        self._file.write(socket.gethostname())
        self._file.flush()

    @classmethod
    def take(cls, folder: Path) -> Hold | None:
        """Hold a folder that others may hold; None where one who is alive does, or where it is gone."""
        try:
            return cls(folder)
        except (BlockingIOError, FileNotFoundError):
            return None

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


def _lock_if_any(descriptor: int) -> None:
    """Take the lock of a file, or raise BlockingIOError where somebody has it.

    Some file systems of networks have no locks: then nobody can tell, and age decides.
    """
    try:
        _lock(descriptor)
    except BlockingIOError:
        raise
    except OSError:
        pass


def _lock(descriptor: int) -> None:
    """Take the lock of a file, or raise OSError."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
