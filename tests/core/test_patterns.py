"""The patterns of sessions against the design, session by session."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from prune_lib.batches import in_pieces
from prune_lib.patterns import Shape, message_unit, session_edges
from tests.reference import MAX_DISTANCE, session_patterns


@pytest.mark.parametrize("longest", [9, 150])
@pytest.mark.parametrize("seed", range(4))
def test_edges_are_those_of_the_design(seed: int, longest: int) -> None:
    """Short sessions and long ones: those are sorted another way."""
    rng = np.random.default_rng(seed)
    n_items = int(rng.integers(1, 40))
    lengths = np.r_[0, rng.integers(0, longest, 30), 1, longest]
    items = rng.integers(0, n_items, lengths.sum()).astype(np.int32)
    code, message, edges = session_edges(items, lengths, n_items, MAX_DISTANCE)
    ends = np.r_[0, np.cumsum(lengths)]
    at = np.r_[0, np.cumsum(edges)]
    for s in range(lengths.size):
        wanted = session_patterns(items[ends[s] : ends[s + 1]].tolist())
        codes = {
            v[0] if len(v) == 1 else n_items + v[0] * n_items + v[1]: round(a * message_unit(MAX_DISTANCE))
            for v, a in wanted.items()
        }
        part = slice(at[s], at[s + 1])
        assert code[part].tolist() == sorted(codes)
        assert dict(zip(code[part].tolist(), message[part].tolist(), strict=True)) == codes


def test_a_sample_has_the_patterns_that_end_at_its_last_click() -> None:
    code, message, edges = session_edges(
        np.array([0, 1, 2, 1], np.int32), np.array([1, 3]), n_items=3, max_distance=3, last_only=True
    )
    # Of 1, 2, 1: target 1; 1 -> 1 at distance 2; 2 -> 1 at distance 1.
    assert (code.tolist(), message.tolist(), edges.tolist()) == ([1, 7, 10], [6, 3, 6], [0, 3])


def test_a_message_stays_an_integer_however_long_a_session_is() -> None:
    """A crawler that reloads one page: 300,000 clicks are 7,381 of evidence each, in units of 1/2520."""
    items = np.zeros(300_000, np.int32)
    code, message, _ = session_edges(items, np.array([items.size]), 1, 10)
    assert code.tolist() == [0, 1]
    assert message.tolist() == [message_unit(10), 2**30]
    code, message, _ = session_edges(items[:100_000], np.array([100_000]), 1, 10)
    pairs = sum((100_000 - d) * (message_unit(10) // d) for d in range(1, 11))
    assert message.tolist() == [message_unit(10), pairs], "what fits is what it is"


def test_no_session_has_no_edge() -> None:
    code, message, edges = session_edges(np.empty(0, np.int32), np.empty(0, np.int64), 5, 3)
    assert code.size == message.size == edges.size == 0


def test_a_batch_in_pieces_has_the_same_edges() -> None:
    """Of long sessions a task takes a few at a time: rows, order and other columns are those of the batch."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 9, n).tolist() for n in (3, 0, 40, 7, 1, 12, 0)]
    # A slice, as Arrow gives them: its lists do not begin at 0.
    batch = pa.RecordBatch.from_pydict({"sid": range(9), "items": [[5], *rows, [6, 7]]}).slice(1, 7)
    shape = Shape(n_items=9, max_distance=MAX_DISTANCE)
    pieces = list(in_pieces([batch], most=10))
    assert [piece.column("sid").to_pylist() for piece in pieces] == [[1, 2], [3], [4, 5], [6], [7]]
    found = [shape.edges(piece) for piece in pieces]
    for one, whole in zip(zip(*found, strict=True), shape.edges(batch), strict=True):
        assert np.concatenate(one).tolist() == whole.tolist()
    assert list(in_pieces([batch])) == [batch]
