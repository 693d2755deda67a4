"""Test sessions and their cases against loops over lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_lib.evaluation.cases import Cases

ragged = st.lists(st.lists(st.integers(0, 50), max_size=9), max_size=25)


@given(ragged)
def test_every_proper_prefix_is_a_case_in_order(sessions: list[list[int]]) -> None:
    cases = Cases.from_sessions(sessions)
    kept = [s for s in sessions if len(s) > 1]
    expected = [(row, t, s[t]) for row, s in enumerate(kept) for t in range(1, len(s))]
    found = zip(cases.session_of.tolist(), cases.position.tolist(), cases.targets.tolist(), strict=True)
    assert list(found) == expected
    assert (cases.n_sessions, cases.n_cases) == (len(kept), len(expected))
    assert [s.tolist() for s in cases.sessions(0, cases.n_sessions)] == kept
    assert {a.dtype for a in (cases.targets, cases.session_of, cases.position)} == {np.dtype(np.int32)}


@given(ragged, st.integers(1, 30))
def test_batches_are_whole_sessions_within_the_limit(sessions: list[list[int]], most: int) -> None:
    cases = Cases.from_sessions(sessions)
    batches = list(cases.batches(most))
    assert [row for lo, hi in batches for row in range(lo, hi)] == list(range(cases.n_sessions))
    for lo, hi in batches:
        held = int(cases.case_starts[hi] - cases.case_starts[lo])
        assert held <= most or hi == lo + 1
        # No batch could have taken one session more.
        assert hi == cases.n_sessions or cases.case_starts[hi + 1] - cases.case_starts[lo] > most


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    cases = Cases.from_sessions([[1, 2, 3], [4, 4]])
    cases.save(tmp_path / "cases.bin")
    again = Cases.load(tmp_path / "cases.bin")
    assert again.items.tolist() == [1, 2, 3, 4, 4] and again.items.dtype == np.int32
    assert again.starts.tolist() == [0, 3, 5] and again.starts.dtype == np.int64


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "cases.npz", items=np.array([[1], [2, 3]], dtype=object), starts=np.array([0, 2]))
    with pytest.raises(ValueError, match="allow_pickle"):
        Cases.load(tmp_path / "cases.npz")


@pytest.mark.parametrize(
    ("items", "starts", "message"),
    [
        ([1, 2, 3], [0, 2], "number of items"),
        ([1, 2, 3], [1, 3], "begin with 0"),
        ([1, 2, 3], [0, 2, 3], "two items"),
        ([1, -1], [0, 2], "negative; got -1"),
    ],
)
def test_what_is_no_test_set_is_refused(items: list[int], starts: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cases(np.array(items, dtype=np.int32), np.array(starts, dtype=np.int64))
