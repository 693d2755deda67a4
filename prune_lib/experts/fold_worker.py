"""Both folds trained at once, each in a Python process of its own with torch's threads to itself.

The experts are small, so that more threads for one of them gain little, and two folds side by side
use two cores fully. `python -m prune_lib.experts.fold_worker JOB` trains the fold that the JSON
file JOB describes; it logs one JSON object a line on stdout, which the parent logs as its own.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from prune_lib.errors import PruneError
from prune_lib.experts.feed import Reader
from prune_lib.experts.mixture import Mixture
from prune_lib.experts.settings import TrainSettings
from prune_lib.experts.training import FOLDS, TrainedFold, train_fold

__all__ = ["main", "train_folds_in_processes"]

log = logging.getLogger(__name__)


def train_folds_in_processes(
    feed: Path,
    folder: Path,
    popularity: npt.NDArray[np.int64],
    settings: TrainSettings,
    *,
    reader: Reader,
    progress: bool,
) -> list[TrainedFold]:
    """Train both folds side by side; the same result as `train_fold` on each, bit for bit.

    Args:
        feed: the folder that `write_feed` wrote.
        folder: an existing folder for what the processes exchange.
        popularity: sessions per item.
        settings: see `TrainSettings`.
        reader: what reads the feed.
        progress: show progress bars on stderr.

    Raises:
        PruneError: a process failed; its messages are on stderr.
    """
    np.save(folder / "popularity.npy", popularity, allow_pickle=False)
    processes: list[subprocess.Popen[str]] = []
    try:
        for fold in FOLDS:
            job = folder / f"job-{fold}.json"
            described = {
                "feed": str(feed),
                "folder": str(folder),
                "fold": fold,
                "reader": reader,
                "progress": progress,
                "settings": settings.model_dump(mode="json"),
            }
            job.write_text(json.dumps(described))
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "prune_lib.experts.fold_worker", str(job)],
                    stdout=subprocess.PIPE,
                    text=True,
                    env={
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    },
                )
            )
        threads = [threading.Thread(target=_relay, args=(p.stdout,), daemon=True) for p in processes]
        for thread in threads:
            thread.start()
        failed = [fold for fold, process in zip(FOLDS, processes, strict=True) if process.wait() != 0]
        for thread in threads:
            thread.join()
    finally:
        for process in processes:
            if process.poll() is None:  # interrupted: leave no process behind
                process.terminate()
    if failed:
        raise PruneError(
            f"The process that trained the experts of fold {failed[0]} ended with exit code "
            f"{processes[failed[0]].returncode} (its messages stand above; a negative code is a "
            f"signal, and -9 is most often a lack of memory). Nothing was written."
        )
    return [_load(folder, fold) for fold in FOLDS]


def _relay(lines: IO[str] | None) -> None:
    for line in lines or ():
        try:
            record = json.loads(line)
            log.log(record["level"], "%s", record["message"])
        except (ValueError, KeyError, TypeError):
            log.info("%s", line.rstrip())  # something a library printed


def _save(folder: Path, fold: int, trained: TrainedFold) -> None:
    experts, gate = trained.mixture.to_bytes()
    (folder / f"experts-{fold}.safetensors").write_bytes(experts)
    (folder / f"gate-{fold}.safetensors").write_bytes(gate)
    (folder / f"metrics-{fold}.json").write_text(json.dumps(trained.metrics))


def _load(folder: Path, fold: int) -> TrainedFold:
    mixture = Mixture.from_bytes(
        (folder / f"experts-{fold}.safetensors").read_bytes(),
        (folder / f"gate-{fold}.safetensors").read_bytes(),
    )
    return TrainedFold(mixture, json.loads((folder / f"metrics-{fold}.json").read_text()))


class _JsonLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(json.dumps({"level": record.levelno, "message": record.getMessage()}) + "\n")
        sys.stdout.flush()


def main(arguments: list[str] | None = None) -> None:
    """Train the fold that a job file describes (see `train_folds_in_processes`)."""
    job = json.loads(Path((arguments or sys.argv[1:])[0]).read_text())
    logging.getLogger("prune_lib").addHandler(_JsonLines())
    logging.getLogger("prune_lib").setLevel(logging.INFO)
    folder = Path(job["folder"])
    trained = train_fold(
        job["feed"],
        job["fold"],
        np.load(folder / "popularity.npy", allow_pickle=False),
        TrainSettings.model_validate(job["settings"]),
        reader=job["reader"],
        progress=job["progress"],
    )
    _save(folder, job["fold"], trained)


if __name__ == "__main__":
    main()
