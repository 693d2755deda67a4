"""Training of the experts of each fold, then of the gate over the frozen experts.

Cross-fitting: the experts and the gate of fold K are trained on sessions of fold K only and score
the sessions of the other fold, so that a session's difficulty is never memory of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prune_lib.errors import EnvironmentProblem, InputError
from prune_lib.experts.bundle import FOLDS, Bundle
from prune_lib.experts.code import code_hash
from prune_lib.experts.devices import mixed_precision, pick_device
from prune_lib.experts.feed import Feed, Reader, write_feed
from prune_lib.experts.settings import WHERE, TrainSettings
from prune_lib.experts.workers import Work, results, run_rounds
from prune_lib.fingerprint import fingerprint
from prune_lib.processes import Hold

if TYPE_CHECKING:
    from prune_lib.sessions.encoding import Encoded

__all__ = ["train_experts"]

log = logging.getLogger(__name__)

#: Interactions from which two processes are worth their start (about 4 s each to import torch).
PARALLEL_FROM = 50_000
#: Seconds after which the checkpoints of a training that nobody went on with are removed: a week. Of a feed,
#: where it cannot be told whether somebody still trains by it. What is seen to be held stays.
_STALE = 7 * 24 * 3600


def train_experts(
    encoded: Encoded,
    settings: TrainSettings,
    folder: str | Path,
    *,
    workdir: str | Path | None = None,
    reader: Reader = "auto",
    progress: bool = True,
    source: str = "",
) -> Bundle:
    """Train the experts and gates of both folds on an input and write them as a bundle.

    Cost: two Spark jobs for the feed, then `2 * settings.epochs` passes over half of it on the
        driver.

    Args:
        encoded: the encoded input; its item table becomes the bundle's vocabulary.
        settings: see `TrainSettings`.
        folder: where the bundle is written, whole or not at all; an older bundle there is replaced.
        workdir: folder for the feed and the checkpoints, shared by driver and executors; both are
            removed at the end. Default: beside `folder`. The checkpoints of a training that was killed
            stay, and the same training goes on from its last whole epoch. Of two at once the second has
            checkpoints of its own, which do not stay.
        reader: what reads the feed.
        progress: tell of each epoch while it runs.
        source: free text kept in the bundle: what it was trained on (table, version).

    Returns:
        The bundle, saved to `folder`.

    Raises:
        InputError: no session has two items or more.
        EnvironmentProblem: CUDA was asked for and there is none, or driver and executors do not share
            the folder.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    processes = _processes(settings, encoded)
    feed = Path(tempfile.mkdtemp(prefix=".feed-", dir=workdir or target.parent))
    hold = Hold(feed)
    try:
        started = time.perf_counter()
        if encoded.n_interactions == encoded.n_sessions:
            raise InputError(
                "Every session of the input has length 1, so there is no next item to learn from. "
                "Give sessions of two interactions or more, or check the session column."
            )
        written = write_feed(
            encoded.sessions,
            feed / "feed",
            n_items=encoded.n_items,
            max_length=settings.max_length,
            recent=settings.validation_positions,
        )
        _check_feed(feed / "feed", written, reader)
        # Now, not after hours on the driver, in which an executor may go and take with it what it keeps.
        vocabulary = encoded.items.select("item", "idx", "sessions").toPandas()
        log.info(
            "training feed written: %s sessions, %.1f s",
            f"{encoded.n_sessions:,}",
            time.perf_counter() - started,
        )
        _clear(feed.parent)
        with _held(_checkpoints(encoded, settings, feed.parent), feed / "training") as checkpoints:
            work = Work(feed / "feed", checkpoints, settings, reader, progress)
            work.keep_popularity(encoded.item_sessions)
            run_rounds(work, processes)
            trained = results(work.folder)
            bundle = Bundle.build(
                mixtures=[fold.mixture for fold in trained],
                snapshots=[fold.snapshots for fold in trained],
                settings=settings,
                vocabulary=vocabulary,
                metrics={f"fold{k}": fold.metrics for k, fold in enumerate(trained)},
                described={
                    "sessions": encoded.n_sessions,
                    "items": encoded.n_items,
                    "interactions": encoded.n_interactions,
                    "source": source,
                },
            )
            return bundle.save(target)
    finally:
        shutil.rmtree(feed, ignore_errors=True)
        hold.release()


def _check_feed(folder: Path, written: int, reader: Reader) -> None:
    """See that the driver reads what the executors wrote.

    Raises:
        EnvironmentProblem: they wrote somewhere else.
    """
    found = sum(
        Feed(folder, fold, part, reader).sessions() for fold in FOLDS for part in ("train", "gate", "holdout")
    )
    if found != written:
        raise EnvironmentProblem(
            f"Spark wrote {written:,} sessions for the training of the experts, and the driver finds "
            f"{found:,} of them in {folder}: the executors do not share this folder. Give a workspace that "
            "they share with the driver (--workspace), or trained experts (--experts)."
        )


def _processes(settings: TrainSettings, encoded: Encoded) -> int:
    """How many trainings run side by side.

    Raises:
        EnvironmentProblem: there is no GPU where one was asked for, or Spark has fewer places for tasks.
    """
    if settings.distributor == "spark":
        asked = settings.processes or len(FOLDS)
        places = encoded.sessions.sparkSession.sparkContext.defaultParallelism
        if asked > places:  # Spark would wait for them, for ten minutes
            raise EnvironmentProblem(
                f"{asked} trainings are to run side by side on Spark's tasks, and Spark has room for "
                f"{places} tasks. Ask for fewer (--training-processes), for larger executors, or let the "
                "driver train (--training-distributor driver)."
            )
        return asked
    on_gpus = pick_device(settings.device).type == "cuda"
    if settings.processes:
        return settings.processes
    if on_gpus:
        return torch.cuda.device_count()
    return min(len(FOLDS), os.cpu_count() or 1) if encoded.n_interactions >= PARALLEL_FROM else 1


def _checkpoints(encoded: Encoded, settings: TrainSettings, store: Path) -> Path:
    """Where this training, of this input by this code, keeps how far it came."""
    known = ("sid", "session_id", "items", "fold", "slice", "age")
    of_input = fingerprint(encoded.sessions, *(encoded.sessions[name] for name in known))
    what = settings.model_dump(mode="json", exclude=set(WHERE))
    if settings.distributor == "driver":  # where tasks train, the driver cannot know what they have
        # A training that a GPU began in mixed precision does not go on without one.
        what["precision"] = mixed_precision(settings.precision, pick_device(settings.device))
    text = json.dumps([of_input, encoded.n_items, code_hash(), what], sort_keys=True)
    return store / f".training-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextmanager
def _held(checkpoints: Path, apart: Path) -> Iterator[Path]:
    """A training's checkpoints, for this process alone: removed at the end, but not after a failure.

    Args:
        checkpoints: where a training that was killed has left them.
        apart: the folder where the same training is under way in that one; whoever gives it removes it.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    hold = Hold.take(checkpoints)
    if hold is None:
        log.info("the same training is under way in %s: this one starts anew, apart from it", checkpoints)
        yield apart
        return
    try:
        yield checkpoints
        shutil.rmtree(checkpoints, ignore_errors=True)
    finally:
        hold.release()


def _clear(store: Path) -> None:
    """Remove what trainings that are no more have left: feeds, and checkpoints that nobody went on with."""
    feeds = [folder for folder in store.glob(".feed-*") if Hold.left(folder) or _stale(folder)]
    for folder in (*feeds, *filter(_stale, store.glob(".training-*"))):
        hold = Hold.take(folder)
        if hold is not None:
            shutil.rmtree(folder, ignore_errors=True)
            hold.release()


def _stale(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > _STALE
    except FileNotFoundError:  # another process was quicker
        return False
