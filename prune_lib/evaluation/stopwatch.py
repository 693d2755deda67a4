"""Seconds that a training in one thread costs, whatever else the machine does meanwhile."""

from __future__ import annotations

import time

__all__ = ["Stopwatch"]


class Stopwatch:
    """Counts from when it is made.

    Trainings run side by side, and other work may share the machine: a clock on the wall would charge one
    training for what another took of its core, and all the data for a colleague's job.
    """

    def __init__(self) -> None:
        """Start."""
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def seconds(self, device: str = "cpu") -> float:
        """Seconds since the start: the processor's for work on it, the wall's for work on a GPU.

        Args:
            device: what does the work; on any but `cpu` this process mostly waits.
        """
        wall = time.perf_counter() - self._wall
        # Two threads count twice as processor time; no more than the wall's has passed for the user.
        return min(wall, time.process_time() - self._processor) if device == "cpu" else wall
