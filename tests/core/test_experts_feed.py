"""The feed gives the same batches by Petastorm and by pyarrow, in an order that the seed fixes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from prune_lib.errors import EnvironmentProblem  # noqa: E402
from prune_lib.experts import feed as feed_module  # noqa: E402
from prune_lib.experts.feed import Feed, bucket_lengths  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A feed as Spark writes it: two buckets, two chunks each, several row groups in a file."""
    root = tmp_path_factory.mktemp("feed")
    random = np.random.default_rng(0)
    for length, rows in ((3, 70), (5, 40)):
        for chunk in range(2):
            items = random.integers(0, 50, (rows, length)).astype(np.int32)
            place = root / f"fold=0/part=train/bucket={length}/chunk={chunk}"
            place.mkdir(parents=True)
            table = pa.table({"items": pa.array(list(items), pa.list_(pa.int32()))})
            pq.write_table(table, place / "part-00000.parquet", row_group_size=16)
    return root


def batches(folder, reader, **options):
    return list(Feed(folder, 0, "train", reader).batches(64, **options))


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("seed", [None, 3])
def test_petastorm_equals_pyarrow(folder, seed, capfd):
    pytest.importorskip("petastorm")
    assert same(batches(folder, "petastorm", seed=seed), batches(folder, "pyarrow", seed=seed))
    assert capfd.readouterr().out == ""


def test_the_seed_fixes_the_order_and_nothing_is_lost(folder):
    one = batches(folder, "pyarrow", seed=1)
    assert same(one, batches(folder, "pyarrow", seed=1))
    other = batches(folder, "pyarrow", seed=2)
    assert not same(one, other)
    rows = [sorted(tuple(row) for batch in x for row in batch.tolist()) for x in (one, other)]
    assert rows[0] == rows[1] and len(rows[0]) == 220
    assert Feed(folder, 0, "train").sessions() == 220


def test_batches_hold_so_many_positions_of_one_length(folder):
    for batch in batches(folder, "pyarrow", seed=1):
        assert batch.dtype == torch.int64
        assert batch.shape[0] * (batch.shape[1] - 1) <= 64


def test_memory_is_bounded_by_groups_of_files(folder, monkeypatch):
    monkeypatch.setattr(feed_module, "SHUFFLED_FILES", 1)
    rows = sum(len(batch) for batch in batches(folder, "pyarrow", seed=1))
    assert rows == 220


def test_an_absent_part_is_empty(folder):
    assert list(Feed(folder, 1, "gate").batches(64)) == []


def test_petastorm_wanted_but_absent(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "petastorm", None)
    with pytest.raises(EnvironmentProblem, match="Petastorm"):
        batches(folder, "petastorm")
    assert same(batches(folder, "auto"), batches(folder, "pyarrow"))


def test_buckets_end_at_the_longest():
    assert bucket_lengths(50) == [3, 5, 9, 17, 33, 50]
    assert bucket_lengths(3) == [3]
    assert bucket_lengths(2) == [2]
