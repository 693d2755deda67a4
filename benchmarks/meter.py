"""Seconds and memory: of the stages of this job, and of a program that is stopped where it takes too much."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

GIB = 2.0**30

# Seconds between two looks at memory: a look at a JVM of several GiB takes tens of milliseconds, in which it
# can map no page.
_APART = 1.0
# Between two looks at whether a program has ended.
_WAIT = 0.05


def memory_of(root: psutil.Process) -> int:
    """Bytes that a process and all below it hold, shared pages counted once."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has ended
            total += process.memory_full_info().pss
    return total


@dataclass
class Meter:
    """Seconds, the largest memory of this job's processes in GiB, and its files' in GB, by stage.

    Files are what the disk of temporary files held more than at the start: others' are in it.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)
    scratch: dict[str, float] = field(default_factory=dict)
    _now: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin to look."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        # Under spark-submit the JVM is this process's parent; else it is a child.
        parent = psutil.Process(os.getppid())
        root = parent if "java" in parent.name() else psutil.Process()
        disk = tempfile.gettempdir()
        before = shutil.disk_usage(disk).used
        while not self._done.wait(_APART):
            total, files = memory_of(root) / GIB, (shutil.disk_usage(disk).used - before) / 1e9
            for name in self._now:
                self.peak[name] = round(max(self.peak.get(name, 0.0), total), 2)
                self.scratch[name] = round(max(self.scratch.get(name, 0.0), files), 2)

    def stop(self) -> None:
        """No more looking."""
        self._done.set()
        self._thread.join()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; a name that comes again adds up."""
        self._now.append(name)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 2)
            self._now.remove(name)
            print(f"  {name}: {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Ended:
    """How a measured program ended.

    Attributes:
        result: the last JSON object that it printed with what it measured; None where it did not get there.
        at: the last place that it said it had reached, in words.
        stopped: why it was stopped, or how it failed; "" where it ended well.
        seconds: wall time, its start included.
        peak: largest memory in GiB, with everything below it.
    """

    result: dict[str, Any] | None
    at: str
    stopped: str
    seconds: float
    peak: float


def limited(
    command: Sequence[str], *, seconds: float, gib: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run a program that prints JSON objects, a line each; stop it where it passes a limit.

    It is stopped, too, where this program is interrupted. An object `{"at": "..."}` says where the program
    is, `{"memory": "..."}` that it got none, any other is its result.
    """
    started, peak, stopped = time.monotonic(), 0.0, ""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    root = psutil.Process(process.pid)
    looked = -_APART
    try:
        while process.poll() is None and not stopped:
            if time.monotonic() - looked >= _APART:
                looked = time.monotonic()
                with contextlib.suppress(psutil.Error):
                    peak = max(peak, memory_of(root) / GIB)
            if time.monotonic() - started > seconds:
                stopped = f"stopped after {seconds / 60:.0f} minutes"
            elif peak > gib:
                stopped = f"stopped at {gib:g} GiB"
            time.sleep(_WAIT)
    finally:  # it has a session of its own, which Ctrl-C does not reach
        if process.poll() is None:
            _kill(root)
    process.wait()
    reader.join(timeout=10)
    wall = time.monotonic() - started
    said = [json.loads(line) for line in lines if line.startswith("{")]
    results = [line for line in said if not line.keys() & {"at", "memory"}]
    places = [line["at"] for line in said if "at" in line]
    refused = [line["memory"] for line in said if "memory" in line]
    if refused:
        stopped = f"out of memory: {refused[-1]}"
    elif not stopped and process.returncode:
        stopped = f"failed with exit code {process.returncode}"
    return Ended(
        results[-1] if results else None,
        places[-1] if places else "",
        stopped,
        round(wall, 2),
        round(peak, 2),
    )


def _kill(root: psutil.Process) -> None:
    for process in [*root.children(recursive=True), root]:
        with contextlib.suppress(psutil.Error):
            process.kill()
