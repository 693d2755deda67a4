"""What an evaluation writes and says: rows in Python's own types, and whose seeds they are the means of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("pyspark")

from prune_lib.evaluation import output
from prune_lib.evaluation.output import _in_words, _native, _track
from prune_lib.evaluation.schemas import RUNS
from prune_lib.evaluation.settings import EvaluateSettings


@pytest.fixture
def in_kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        yield
    time.tzset()


def test_times_of_former_runs_stay_where_they_are(in_kathmandu: None) -> None:
    """A table's come without a zone, in UTC; Spark reads a time without one as local."""
    finished = next(c for c in RUNS if c.name == "finished_at")
    former, own = pd.Timestamp(2026, 3, 1, 12), datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    elsewhere = own.astimezone(timezone(timedelta(hours=5)))
    frame = pd.DataFrame({"finished_at": [former, own, elsewhere, None]}, dtype=object)
    moments = [row[0] for row in _native(frame, [finished])]
    assert moments == [own, own, own, None] and all(m.tzinfo for m in moments if m)


def summary(**seeds: int) -> pd.DataFrame:
    """Recall of targets by as many seeds, of ours and of all the data."""
    own = {"variant": "", "regime": "steps", "samples": "positions", "band": "all", "metric": "recall@20"}
    rows = [
        {**own, "target": target, "method": method, "ratio": ratio, "mean": 0.5, "seeds": n}
        for target, n in seeds.items()
        for method, ratio in (("graph", 0.1), ("all", 1.0))
    ]
    return pd.DataFrame(rows)


def test_the_text_says_of_how_many_seeds_each_table_is(tmp_path: Path) -> None:
    settings = EvaluateSettings(name="shop", seeds=1)
    more = _in_words(settings, summary(markov=1, gru4rec=3), tmp_path)
    assert "samples positions, mean of 1 to 3 seeds\n" in more
    assert "mean of 3 seeds\n" in _in_words(settings, summary(gru4rec=3), tmp_path)
    assert "mean of 1 seed\n" in _in_words(settings, summary(gru4rec=1), tmp_path)


def test_a_tracked_run_has_the_seeds_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tracker:
        def metrics(self, values: Any) -> None:
            pass

        artifact = metrics

    params: dict[str, Any] = {}

    @contextmanager
    def tracked(workspace: str, name: str, title: str, given: dict[str, Any]) -> Iterator[Tracker]:
        params[title] = given["seeds"]
        yield Tracker()

    monkeypatch.setattr(output, "tracked_run", tracked)
    document = tmp_path / "results.md"
    _track(EvaluateSettings(name="shop", seeds=1), summary(markov=1, gru4rec=3), {}, document, 1.0)
    assert params == {
        "graph 0.1 steps positions": "1 to 3",
        "all 1.0 steps positions": "1 to 3",
        "results": 1,
    }
