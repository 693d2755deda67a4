"""Cells run side by side, each in a process with one thread of torch's to itself.

The targets are small: two processes with a thread each finish more of them than one with two threads, and
with one thread the weights do not depend on the machine's cores.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from prune_lib.errors import PruneError
from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.cells import WORST_RANK, Cell, CellResult, CellStore
from prune_lib.evaluation.files import load_sessions
from prune_lib.evaluation.metrics import coverage, mean_popularity
from prune_lib.evaluation.ranking import Target, rank_cases
from prune_lib.evaluation.stopwatch import Stopwatch
from prune_lib.evaluation.targets.settings import COUNTED
from prune_lib.popularity import gini
from prune_lib.processes import end_with_parent

__all__ = ["Job", "run_cell", "run_cells"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A cell and where its files lie.

    Attributes:
        cell: what to run.
        subset: the subset's folder.
        split: the split's folder.
        rows: sessions in a training batch, where not by padded positions.
        label: for the log.
        weight: what it will cost, in any unit, for the time that is left.
    """

    cell: Cell
    subset: Path
    split: Path
    rows: int | None
    label: str
    weight: float


def run_cells(jobs: Sequence[Job], store: CellStore, *, processes: int, device: str) -> None:
    """Run cells, the costly ones first, and keep each result as it comes.

    Args:
        jobs: what is not done yet.
        store: where results are kept.
        processes: side by side; 0 for as many as there are cores.
        device: auto, cpu or cuda; on a GPU one process.
    """
    if not jobs:
        return
    count = processes or _cores()
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            count = 1
    ordered = sorted(jobs, key=lambda job: -job.weight)
    # Spawned, not forked: this process holds a JVM's connection and torch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(count, len(ordered)), mp_context=context, initializer=_one_thread) as pool:
        with _callers_script_hidden():  # the pool starts its processes as it gets work
            running = {pool.submit(run_cell, job, store.folder, device): job for job in ordered}
        started, all_weight, done_weight = time.monotonic(), sum(j.weight for j in ordered), 0.0
        try:
            for n, future in enumerate(as_completed(running), 1):
                job = running[future]
                try:
                    recall, seconds = future.result()
                except BrokenProcessPool as error:
                    raise PruneError(
                        f"a process that trained {job.label} was killed, most often for want of memory. What "
                        "is done is kept: run the same command again, with --processes 1."
                    ) from error
                except PruneError:
                    raise
                except Exception as error:
                    raise RuntimeError(f"training {job.label}: {error}") from error
                done_weight += job.weight
                left = (time.monotonic() - started) * (all_weight / done_weight - 1)
                _LOG.info(
                    "%d of %d: %s: Recall@20 %.1f (%.0f s); about %s left",
                    n,
                    len(ordered),
                    job.label,
                    100 * recall,
                    seconds,
                    f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s",
                )
        except BaseException:
            # Nothing waits for the other cells; the pool forgets its processes as it shuts down.
            processes_now = list((getattr(pool, "_processes", None) or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes_now:
                process.terminate()
            raise


@contextmanager
def _callers_script_hidden() -> Iterator[None]:
    """Within it, processes are started that do not execute the script which this process runs.

    A spawned process executes it first, in case something that it is to unpickle is defined there; ours get
    nothing of the kind. A script that calls `prune_lib.evaluate` without asking for its own `__name__` would
    begin the whole evaluation again in each of them, and they would die of that.
    """
    script = vars(sys.modules["__main__"])
    # What `multiprocessing.spawn.get_preparation_data` looks for: of `python -m`, and of a file.
    told: dict[str, Any] = {name: script[name] for name in ("__spec__", "__file__") if name in script}
    script.update(dict.fromkeys(told))
    try:
        yield
    finally:
        script.update(told)


def _cores() -> int:
    """Cores that this process may use; macOS knows no affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_thread() -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    # A terminal's Ctrl-C reaches this process too; the parent says what happened.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def run_cell(job: Job, folder: Path, device: str) -> tuple[float, float]:
    """Train, rank and keep one cell; returns its Recall@20 and seconds."""
    started = time.perf_counter()
    model, numbers = _trained(job, device)
    cases, popularity = _cases(job.split), np.load(job.split / "item_sessions.npy")
    ranking = time.perf_counter()
    ranked = rank_cases(model, cases)
    ranks = np.minimum(ranked.ranks, WORST_RANK).astype(np.uint8)
    result = CellResult(
        job.cell.id,
        ranks,
        {
            **numbers,
            "rank_seconds": time.perf_counter() - ranking,
            "coverage": coverage(ranked.recommended),
            "mean_popularity": mean_popularity(ranked.recommended, popularity),
            "gini": gini(ranked.recommended),
        },
    )
    _check_files(job)
    CellStore(folder).put(result)
    return float((ranks <= 20).mean()), time.perf_counter() - started


def _check_files(job: Job) -> None:
    """See that what was read is what the cell names.

    Raises:
        PruneError: another evaluation has replaced the files in the meantime.
    """
    note = json.loads((job.subset / "subset.json").read_text())
    # The same sessions may have been cut to another length.
    length = job.cell.recipe.get("max_length")
    cut = length is not None and note.get("max_length", length) != length
    if cut or note["hash"] != job.cell.subset or not job.cell.data.endswith(_cases(job.split).digest()):
        raise PruneError(
            f"the files that {job.label} is trained on were replaced while it ran: is another evaluation of "
            "the same data at work in the same workspace? Run them one after the other."
        )


@cache
def _cases(split: Path) -> Cases:
    return Cases.load(split / "cases.npz")


def _trained(job: Job, device: str) -> tuple[Target, dict[str, float]]:
    cell = job.cell
    popularity = np.load(job.subset / "popularity.npy")
    if cell.target in COUNTED:
        watch = Stopwatch()
        sessions = load_sessions(job.subset)
        model = _counted(cell.target, sessions, len(popularity), cell.recipe)
        return model, {"train_seconds": watch.seconds()}
    from prune_lib.evaluation.targets.neural import Recipe, fit_neural
    from prune_lib.experts.feed import Feed

    feed = Feed(job.subset / ("prefixes" if cell.samples == "prefixes" else "feed"), 0, "train")
    fitted = fit_neural(
        feed,
        popularity,
        Recipe(target=cell.target, device=device, **cell.recipe),
        steps=cell.steps,
        seed=cell.seed,
        rows=job.rows,
        last_only=cell.samples != "positions",
    )
    return fitted.model, {
        "train_seconds": fitted.seconds,
        "steps": fitted.steps,
        "passes": fitted.passes,
        "learned": fitted.learned,
        "loss": fitted.loss,
    }


def _counted(name: str, sessions: list[Any], n_items: int, recipe: Mapping[str, Any]) -> Target:
    from prune_lib.evaluation.targets.markov import Markov
    from prune_lib.evaluation.targets.neighbours import ItemKnn, SessionKnn

    if name == "item-knn":
        return ItemKnn.fit(sessions, n_items, neighbours=recipe["neighbours"])
    if name == "session-knn":
        return SessionKnn.fit(sessions, n_items, neighbours=recipe["neighbours"])
    return Markov.fit(sessions, n_items)
