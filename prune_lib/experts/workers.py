"""The trainings of experts and gates as jobs: one after the other, in processes side by side, or on Spark.

Whatever runs them, the weights are the same bit for bit, as no job knows of another (see fitting.py; on GPUs
up to what their kernels leave open). The experts are small, so that more threads for one of them gain little,
and jobs side by side use the cores fully. Jobs meet in one folder: checkpoints, and what `results` reads.

`python -m prune_lib.experts.workers FILE` runs the jobs that the JSON file describes; it logs one JSON object
a line on stdout, which the parent logs as its own.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch

from prune_lib.errors import PruneError
from prune_lib.experts import checkpoint
from prune_lib.experts.bundle import FOLDS
from prune_lib.experts.devices import pick_device, torch_state
from prune_lib.experts.dynamics import snapshots_to_bytes
from prune_lib.experts.feed import Feed, Reader
from prune_lib.experts.fitting import Fold, fit_experts
from prune_lib.experts.gating import LIKELIHOOD, fit_gate
from prune_lib.experts.mixture import Mixture, standardised_log_popularity
from prune_lib.experts.models import Gate, make_expert
from prune_lib.experts.progress import PROGRESS, Progress, named
from prune_lib.experts.settings import EXPERTS, TrainSettings
from prune_lib.processes import end_with_parent

__all__ = ["Job", "TrainedFold", "Work", "main", "results", "rounds", "run_job", "run_rounds"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is trained in one go.

    Attributes:
        fold: 0 or 1.
        kinds: experts that share a pass over the feed; none where they are trained already.
        gate: train the gate over the fold's experts afterwards.
    """

    fold: int
    kinds: tuple[str, ...]
    gate: bool


@dataclass(frozen=True)
class Work:
    """What all jobs of a training share.

    Attributes:
        feed: the folder that `write_feed` wrote.
        folder: checkpoints and results; what is there already is not trained again.
        settings: see `TrainSettings`.
        reader: what reads the feed.
        progress: tell of each epoch while it runs.
    """

    feed: Path
    folder: Path
    settings: TrainSettings
    reader: Reader = "auto"
    progress: bool = True

    def keep_popularity(self, popularity: npt.NDArray[np.int64]) -> None:
        """Write the sessions per item [n_items], which every job reads."""
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.folder / "popularity.npy", popularity, allow_pickle=False)

    def described(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **asdict(self),
            "feed": str(self.feed),
            "folder": str(self.folder),
            "settings": self.settings.model_dump(mode="json"),
        }

    @classmethod
    def of(cls, described: dict[str, Any]) -> Work:
        """From what `described` returns."""
        return cls(
            Path(described["feed"]),
            Path(described["folder"]),
            TrainSettings.model_validate(described["settings"]),
            described["reader"],
            described["progress"],
        )


@dataclass
class TrainedFold:
    """The frozen mixture of a fold, its held-out metrics, and its experts of every epoch if they are kept."""

    mixture: Mixture
    metrics: dict[str, Any]
    snapshots: bytes | None = None


def rounds(processes: int) -> list[list[Job]]:
    """Return jobs in rounds, each of which needs the one before.

    Up to two processes take a fold each, where the three experts share the reading of the feed; more take an
    expert of a fold each, and then two of them the gates.
    """
    if processes <= len(FOLDS):
        return [[Job(fold, EXPERTS, True) for fold in FOLDS]]
    return [
        [Job(fold, (kind,), False) for fold in FOLDS for kind in EXPERTS],
        [Job(fold, (), True) for fold in FOLDS],
    ]


def run_rounds(work: Work, processes: int) -> None:
    """Run all jobs, in this process (1), in processes of this machine, or in tasks of Spark's.

    Raises:
        PruneError: a process failed; its messages are on stderr.
    """
    for jobs in rounds(processes):
        n = min(processes, len(jobs))
        if work.settings.distributor == "spark":
            _run_on_spark(work, jobs, n)
        elif n == 1:
            for job in jobs:
                run_job(work, job, rank=0)
        else:
            _run_in_processes(work, jobs, n)


def results(folder: Path) -> list[TrainedFold]:
    """Read what the jobs made: by fold."""
    return [
        TrainedFold(
            Mixture.from_bytes(
                (folder / f"experts-{fold}.safetensors").read_bytes(),
                (folder / f"gate-{fold}.safetensors").read_bytes(),
            ),
            json.loads((folder / f"metrics-{fold}.json").read_text()),
            _content(folder / f"snapshots-{fold}.safetensors"),
        )
        for fold in FOLDS
        if (folder / f"metrics-{fold}.json").is_file()
    ]


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def run_job(work: Work, job: Job, *, rank: int) -> None:
    """Train what a job names; the files it leaves are whole or not there.

    Args:
        work: what it shares with the others.
        job: the experts and the gate.
        rank: number of the process, from 0: its GPU and the line of its progress.
    """
    settings, fold, folder = work.settings, job.fold, work.folder
    done = folder / f"metrics-{fold}.json"
    if job.gate and done.is_file():  # by the run that was killed
        return
    device = pick_device(settings.device, rank)
    popularity = np.load(folder / "popularity.npy", allow_pickle=False)
    names = ("train", "gate", "holdout", "recent")
    parts = {part: Feed(work.feed, fold, part, work.reader) for part in names}
    started = time.perf_counter()
    with torch_state(settings.seed * 2 + fold, settings.threads):
        if job.kinds:
            of_fold = Fold(fold, parts, popularity, settings, device, work.progress, rank)
            fit_experts(of_fold, job.kinds, folder)
        if not job.gate:
            return
        fitted = time.perf_counter()
        mixture, epochs = _mixture_of(work, fold, popularity)
        metrics = fit_gate(mixture.to(device), parts, settings, fold, popularity)
    metrics |= {"sessions": parts["train"].sessions(), "epochs": epochs}
    log.info(
        "fold %d trained: %sgate %.1f s; held-out log-likelihood %s",
        fold,
        f"experts {fitted - started:.1f} s, " if job.kinds else "",
        time.perf_counter() - fitted,
        named({k.removeprefix(LIKELIHOOD): v for k, v in metrics.items() if k.startswith(LIKELIHOOD)}),
    )
    if settings.snapshots:
        _write(folder / f"snapshots-{fold}.safetensors", _snapshots(folder, fold, epochs))
    experts, gate = mixture.to_bytes()
    _write(folder / f"experts-{fold}.safetensors", experts)
    _write(folder / f"gate-{fold}.safetensors", gate)
    _write(done, json.dumps(metrics).encode())


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all: a kill in between leaves none that could be taken for it."""
    made = file.with_suffix(f".{os.getpid()}")
    made.write_bytes(content)
    made.replace(file)


def _mixture_of(work: Work, fold: int, popularity: npt.NDArray[np.int64]) -> tuple[Mixture, int]:
    """The frozen experts of a fold under an untrained gate, and the epochs they took at most."""
    settings, experts, epochs = work.settings, [], 0
    for kind in EXPERTS:
        weights, took = checkpoint.read_best(checkpoint.expert_file(work.folder, fold, kind))
        expert = make_expert(kind, popularity, dim=settings.dim, max_length=settings.max_length, dropout=0.0)
        expert.load_state_dict(weights)
        experts.append(expert.eval().requires_grad_(False))
        epochs = max(epochs, took)
    return Mixture(experts, Gate(), standardised_log_popularity(popularity)).eval(), epochs


def _snapshots(folder: Path, fold: int, epochs: int) -> bytes:
    """The experts of every epoch; one that stopped has none from then on."""
    found: list[dict[str, dict[str, torch.Tensor]]] = []
    for epoch in range(epochs):
        files = {kind: checkpoint.snapshot_file(folder, fold, kind, epoch) for kind in EXPERTS}
        found.append({kind: safetensors.torch.load_file(f) for kind, f in files.items() if f.is_file()})
    return snapshots_to_bytes(found)


# -------------------------------------------------------------------------------- processes and tasks


def _run_in_processes(work: Work, jobs: Sequence[Job], n: int) -> None:
    processes: list[subprocess.Popen[str]] = []
    try:
        for rank in range(n):
            file = work.folder / f"jobs-{rank}.json"
            described = {
                "work": work.described(),
                "jobs": [asdict(job) for job in jobs[rank::n]],
                "rank": rank,
            }
            file.write_text(json.dumps(described))
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "prune_lib.experts.workers", str(file)],
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                )
            )
        threads = [threading.Thread(target=_relay, args=(p.stdout,), daemon=True) for p in processes]
        for thread in threads:
            thread.start()
        failed = [process for process in processes if process.wait() != 0]
        for thread in threads:
            thread.join()
    finally:
        for process in processes:
            if process.poll() is None:  # interrupted: leave no process behind
                process.terminate()
    if failed:
        raise PruneError(
            f"A process that trained experts ended with exit code {failed[0].returncode} (its messages "
            "stand above; a negative code is a signal, and -9 is most often a lack of memory). No bundle was "
            "written; the next run goes on from the last whole epoch."
        )


def _relay(lines: IO[str] | None) -> None:
    for line in lines or ():
        try:
            record = json.loads(line)
            progress = {"progress": Progress(**record["progress"])} if record.get("progress") else {}
            log.log(record["level"], "%s", record["message"], extra=progress)
        except (ValueError, KeyError, TypeError):
            log.info("%s", line.rstrip())  # something a library printed


class _JsonLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        progress = getattr(record, "progress", None)
        line = {
            "level": record.levelno,
            "message": record.getMessage(),
            "progress": asdict(progress) if progress else None,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def main(arguments: list[str] | None = None) -> None:
    """Run the jobs that a file describes (see `_run_in_processes`)."""
    end_with_parent()
    described = json.loads(Path((arguments or sys.argv[1:])[0]).read_text())
    logging.getLogger("prune_lib").addHandler(_JsonLines())
    logging.getLogger("prune_lib").setLevel(PROGRESS)
    for job in described["jobs"]:
        job["kinds"] = tuple(job["kinds"])
        run_job(Work.of(described["work"]), Job(**job), rank=described["rank"])


def _run_on_spark(work: Work, jobs: Sequence[Job], n: int) -> None:
    """Run jobs in n tasks of one barrier stage, by TorchDistributor; the folders are shared with them.

    GPUs are asked of Spark only where they were asked for (`device: cuda`): it may have none for tasks.
    """
    from pyspark.ml.torch.distributor import TorchDistributor

    gpu = work.settings.device == "cuda"
    described = {**work.described(), "progress": False}
    try:
        TorchDistributor(num_processes=n, local_mode=False, use_gpu=gpu).run(
            _ranked, described, [asdict(job) for job in jobs]
        )
    except Exception as problem:  # of Spark, of torchrun, or of the training, all as they come
        last = (str(problem).strip().splitlines() or [type(problem).__name__])[-1]
        raise PruneError(
            f"Training on Spark's tasks failed: {last} (more stands "
            "above, and in the executors' logs). No bundle was written; the next run goes on from the last "
            "whole epoch."
        ) from problem


def _ranked(described: dict[str, Any], jobs: list[dict[str, Any]]) -> None:
    """Run this task's share of the jobs; torchrun says which task it is."""
    rank, n = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for job in jobs[rank::n]:
        run_job(
            Work.of(described),
            Job(job["fold"], tuple(job["kinds"]), job["gate"]),
            rank=int(os.environ["LOCAL_RANK"]),
        )


if __name__ == "__main__":
    main()
