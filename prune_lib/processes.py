"""What the processes that this project starts have in common."""

from __future__ import annotations

import os
import threading
import time

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """End this process within a second or so of its parent's end, however that ended.

    Without it a child of a killed run would go on with work that nobody waits for.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
