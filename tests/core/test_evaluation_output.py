"""What an evaluation writes and says: rows in Python's own types, and whose seeds they are the means of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

pytest.importorskip("pyspark")

from prune_lib.errors import OutputError, SettingsError
from prune_lib.evaluation import output
from prune_lib.evaluation.files import Subset
from prune_lib.evaluation.output import _in_words, _native, _track
from prune_lib.evaluation.schemas import RUNS
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.evaluation.subsets import check_kept


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


@pytest.mark.parametrize("inside", ["report", "report/deep/er", "."])
def test_a_report_that_has_no_place_is_refused_before_anything_runs(tmp_path: Path, inside: str) -> None:
    """Nothing is made by asking; a file in the way is told."""
    output._check_folder(tmp_path / inside)
    assert not list(tmp_path.iterdir())
    (tmp_path / "report").write_text("a file")
    if inside == ".":
        output._check_folder(tmp_path / inside)
        return
    with pytest.raises(OutputError, match=r"report is a file\. Name another by --document") as caught:
        output._check_folder(tmp_path / inside)
    assert caught.value.exit_code == 2


def test_the_places_of_an_evaluation_are_the_first_that_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    settings = EvaluateSettings(workspace=str(tmp_path / "ws"), document=str(tmp_path / "report" / "x"))
    with pytest.raises(OutputError, match="is a file"):
        output.check_places(cast(Any, None), settings)


def subset(sessions: int, interactions: int, targets: int) -> Subset:
    return Subset(Path("nowhere"), sessions, interactions, 5, targets, "h")


def test_a_subset_that_teaches_nothing_is_refused_and_a_small_one_is_told() -> None:
    warned: list[str] = []
    who = "the method random (seed 3)"
    for kept in (subset(0, 0, 0), subset(4, 4, 0)):
        with pytest.raises(SettingsError) as caught:
            check_kept(kept, who, 0.001, 4, warn=warned.append)
        assert "the method random (seed 3) keeps no session of two clicks at the ratio 0.001" in str(
            caught.value
        )
    check_kept(subset(10, 95, 85), who, 0.1, 100, warn=warned.append)
    check_kept(subset(100, 250, 150), who, 0.1, 100, warn=warned.append, samples=True)
    assert not warned
    check_kept(subset(10, 94, 84), who, 0.1, 100, warn=warned.append)
    check_kept(subset(94, 250, 150), who, 0.1, 100, warn=warned.append, samples=True)
    assert [text.partition(" at the ratio")[0] for text in warned] == [
        "the method random (seed 3) uses only 94 of the budget of 100 interactions",
        "the method random (seed 3) uses only 94 of the budget of 100 samples",
    ]
