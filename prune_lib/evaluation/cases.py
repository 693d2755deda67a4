"""The test set: ragged sessions, every proper prefix of which is a test case."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Cases"]


@dataclass(frozen=True, eq=False)
class Cases:
    """Test sessions of item indices; S sessions with M interactions give N = M - S cases.

    A case is a proper prefix of a session, and its target is the item that follows. Cases stand in order
    of session, then position, everywhere in this package.

    Attributes:
        items: item indices, session after session, shape (M,).
        starts: where each session begins in `items`, and M at the end, shape (S + 1,).

    >>> cases = Cases.from_sessions([[4, 5, 6], [9], [7, 7]])
    >>> cases.targets.tolist(), cases.session_of.tolist(), cases.position.tolist()
    ([5, 6, 7], [0, 0, 1], [1, 2, 1])
    """

    items: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse arrays that are not sessions of two and more items.

        Raises:
            ValueError: with what is wrong.
        """
        if self.starts.size == 0 or self.starts[0] != 0 or self.starts[-1] != self.items.size:
            raise ValueError("starts must begin with 0 and end with the number of items")
        if (np.diff(self.starts) < 2).any():
            raise ValueError("every test session needs two items or more: a prefix and a target")
        # A negative index would count from the end of the scores without any complaint.
        if self.items.min(initial=0) < 0:
            raise ValueError(f"item indices must not be negative; got {self.items.min()}")

    @classmethod
    def from_sessions(cls, sessions: Iterable[Sequence[int] | npt.NDArray[np.integer[Any]]]) -> Cases:
        """Take sessions of item indices; those of fewer than two items give no case and are dropped."""
        kept = [np.asarray(s, dtype=np.int32) for s in sessions if len(s) > 1]
        starts = np.cumsum([0, *(len(s) for s in kept)], dtype=np.int64)
        return cls(np.concatenate(kept) if kept else np.empty(0, dtype=np.int32), starts)

    @property
    def n_sessions(self) -> int:
        """Number of sessions, S."""
        return self.starts.size - 1

    @property
    def n_cases(self) -> int:
        """Number of cases, N."""
        return self.items.size - self.n_sessions

    @cached_property
    def case_starts(self) -> npt.NDArray[np.int64]:
        """Where each session's cases begin among all cases, and N at the end, shape (S + 1,)."""
        return self.starts - np.arange(self.starts.size)

    @cached_property
    def targets(self) -> npt.NDArray[np.int32]:
        """The item to be found, by case, shape (N,)."""
        return np.delete(self.items, self.starts[:-1])

    @cached_property
    def session_of(self) -> npt.NDArray[np.int32]:
        """The session's number, by case, shape (N,)."""
        return np.repeat(np.arange(self.n_sessions, dtype=np.int32), np.diff(self.case_starts))

    @cached_property
    def position(self) -> npt.NDArray[np.int32]:
        """The length of the prefix, by case, shape (N,)."""
        return (np.arange(self.n_cases) - self.case_starts[self.session_of] + 1).astype(np.int32)

    def sessions(self, lo: int, hi: int) -> list[npt.NDArray[np.int32]]:
        """Sessions lo to hi - 1, as views."""
        return [
            self.items[a:b] for a, b in zip(self.starts[lo:hi], self.starts[lo + 1 : hi + 1], strict=True)
        ]

    def batches(self, max_cases: int) -> Iterator[tuple[int, int]]:
        """Ranges (lo, hi) of whole sessions with at most `max_cases` cases, or of one longer session."""
        lo = 0
        while lo < self.n_sessions:
            end = self.case_starts[lo] + max_cases
            hi = max(lo + 1, int(np.searchsorted(self.case_starts, end, side="right")) - 1)
            yield lo, hi
            lo = hi

    def digest(self) -> str:
        """A hash of the sessions in their order; 16 hexadecimal digits."""
        content = hashlib.sha256(self.starts.astype("<i8").tobytes())
        content.update(self.items.astype("<i4").tobytes())
        return content.hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write an .npz file, at exactly this path."""
        with open(path, "wb") as file:
            np.savez_compressed(file, items=self.items, starts=self.starts)

    @classmethod
    def load(cls, path: str | Path) -> Cases:
        """Read what `save` wrote; pickles are refused."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["items"], file["starts"])
