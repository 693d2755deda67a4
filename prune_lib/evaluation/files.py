"""What lies on disk between Spark and the targets' processes: a split, and subsets of its sessions."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_lib.evaluation.cases import Cases
from prune_lib.experts.code import sources
from prune_lib.experts.feed import Feed
from prune_lib.wording import allowed

__all__ = ["Split", "Subset", "budget_of", "code_hash", "load_sessions", "mark_used", "remove_unused"]


_LOG = logging.getLogger(__name__)
# A split's file that is as old as its last use.
_USED = "used"
_UNUSED_SECONDS = 14 * 24 * 3600


@dataclass(frozen=True)
class Split:
    """Training sessions and test cases in one vocabulary, as files of a folder.

    Attributes:
        folder: holds `sessions` (Delta: session_id, items ARRAY<BIGINT> of item indices, place BIGINT from
            old to new), `cases.npz` and `split.json`. Its name holds the hashes: other data, other folder.
        name: test or validation.
        has_order: whether the input ranks its sessions from old to new; else `place` goes by id.
        n_sessions: training sessions.
        n_items: size of the vocabulary.
        n_interactions: training interactions.
        test_sessions: test sessions with a case.
        n_cases: test cases.
        unknown: test interactions left out because training lacks their item.
        repeated: test sessions with a case whose items are, one by one, those of a training session.
        data_hash: of the training sessions; the same rows give the same.
        cases_hash: of the test cases.
    """

    folder: Path
    name: str
    has_order: bool
    n_sessions: int
    n_items: int
    n_interactions: int
    test_sessions: int
    n_cases: int
    unknown: int
    repeated: int
    data_hash: str
    cases_hash: str

    @property
    def sessions(self) -> str:
        """The Delta table of the training sessions."""
        return str(self.folder / "sessions")

    @property
    def cases_file(self) -> Path:
        """The test cases, for `Cases.load`."""
        return self.folder / "cases.npz"

    def cases(self) -> Cases:
        """The test cases."""
        return Cases.load(self.cases_file)

    def item_sessions(self) -> npt.NDArray[np.int64]:
        """Training sessions that hold each item, shape (n_items,)."""
        counts: npt.NDArray[np.int64] = np.load(self.folder / "item_sessions.npy", allow_pickle=False)
        return counts


@dataclass(frozen=True)
class Subset:
    """Sessions to train on, as files of a folder.

    Attributes:
        folder: holds `feed` (see experts.feed), `sessions` (Parquet: items, in order of time),
            `popularity.npy`, and `prefixes` (a feed) where it was asked for.
        sessions: how many.
        interactions: in them.
        items: distinct items in them.
        targets: positions with a next item, in the feed.
        hash: of the rows; the same sessions give the same.
    """

    folder: Path
    sessions: int
    interactions: int
    items: int
    targets: int
    hash: str

    def feed(self, samples: str = "positions") -> Feed:
        """What a neural target reads: whole sessions, or each prefix as a row of its own."""
        return Feed(self.folder / ("prefixes" if samples == "prefixes" else "feed"), 0, "train")


@cache
def code_hash() -> str:
    """A hash of all code that pruning runs: after a change nothing that it made is taken for the new."""
    content = hashlib.sha256()
    for path, file in sources():
        if "evaluation" not in path:
            content.update(file)
    return content.hexdigest()[:8]


def load_sessions(folder: Path) -> list[npt.NDArray[np.int32]]:
    """Sessions of a subset's folder, from old to new."""
    import pyarrow.parquet as pq

    sessions: list[npt.NDArray[np.int32]] = []
    for file in sorted((folder / "sessions").glob("*.parquet")):
        column = pq.read_table(file, columns=["items"])["items"].combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        sessions += np.split(flat, np.cumsum(lengths)[:-1]) if len(lengths) else []
    return sessions


def mark_used(split: Path) -> None:
    """Note that an evaluation works in a split's folder."""
    (split / _USED).touch()


def remove_unused(folder: Path, used: Sequence[Path]) -> None:
    """Remove splits that no evaluation has used for two weeks, such as those of last month's data.

    Args:
        folder: of a data set's working files; splits are `test-…` and `validation-…` in it.
        used: the splits of this evaluation.
    """
    for split in [*folder.glob("test-*"), *folder.glob("validation-*")]:
        mark = split / _USED
        # Of a version that left no mark: as old as what it wrote last.
        last = (mark if mark.exists() else split).stat().st_mtime
        if split not in used and time.time() - last > _UNUSED_SECONDS:
            _LOG.info("removing the working files of former data: %s", split)
            shutil.rmtree(split, ignore_errors=True)


def budget_of(ratio: float, interactions: int) -> int:
    """Interactions that a ratio allows, as pruning counts them.

    >>> budget_of(0.07, 100)
    7
    """
    return allowed(ratio, interactions)
