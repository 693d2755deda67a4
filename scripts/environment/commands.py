"""Runs other programs quietly: what they print goes to a log file, the last line to a terminal."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

# pip's and the resolver's lines about what they are at; the rest is for the log.
_WORTH_SHOWING = re.compile(r"\s*(Collecting|Downloading|Building|Installing|downloading|found) ")


def say(message: str) -> None:
    """Prints one line of progress."""
    print(f"set-up: {message}", flush=True)


class Runner:
    """Runs commands, keeping all that they print in one log file.

    Args:
        log: The file; it is appended to.
        live: Whether to show the newest line of output, as a terminal can.
    """

    def __init__(self, log: Path, live: bool | None = None) -> None:
        self.log = log
        self.live = sys.stdout.isatty() if live is None else live

    def __call__(
        self,
        command: list[str],
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end.

        Raises:
            subprocess.TimeoutExpired: It took longer than `timeout` seconds, and was ended.
        """
        lines: list[str] = []
        late = threading.Event()
        with (
            open(self.log, "a", encoding="utf-8") as log,
            subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            log.write(f"\n$ {' '.join(command)}\n")

            def end() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(timeout, end) if timeout else None
            if timer:
                timer.start()
            try:
                for line in process.stdout or ():
                    lines.append(line)
                    log.write(line)
                    log.flush()
                    self._show(line)
            except BaseException:
                process.terminate()
                raise
            finally:
                if timer:
                    timer.cancel()
                self._show("")
        if late.is_set():
            raise subprocess.TimeoutExpired(command, timeout or 0)
        return subprocess.CompletedProcess(command, process.returncode, "".join(lines))

    def _show(self, line: str) -> None:
        """Shows a line over the one before; an empty one clears it."""
        if self.live and (not line or _WORTH_SHOWING.match(line)):
            width = shutil.get_terminal_size().columns - 1
            text = f"  {line.strip()}"[:width] if line else ""
            print(f"\r{text:<{width}}\r", end="", flush=True)
