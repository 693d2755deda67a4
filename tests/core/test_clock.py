"""A clock that is put back changes neither what is the newest nor what comes first."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyspark")
from prune_lib import model_store, run_record
from prune_lib.settings import PruneSettings
from prune_lib.stages import Stages

NOON = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)


def clock(now: datetime) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return now

    return Clock


def test_the_bundle_that_is_trained_last_is_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experts" / "mine").mkdir(parents=True)
    (tmp_path / "experts" / ".training-abc").mkdir()
    names = []
    for hours in (0, -5, -5, 3):
        monkeypatch.setattr(model_store, "datetime", clock(NOON + timedelta(hours=hours)))
        folder = model_store.new_folder(str(tmp_path))
        folder.mkdir()
        names.append(folder.name)
    assert names == sorted(set(names)) and names[0] == "20260501T120000000000"
    assert names[-1] == "20260501T150000000000", "a clock that is right again is believed"


def test_no_run_ends_before_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "datetime", clock(NOON - timedelta(hours=2)))
    monkeypatch.setattr(run_record, "_versions", lambda _: {})

    class Table:
        location, format, version = "/data/clicks", "delta", 3

    run = run_record.run_of(
        None, PruneSettings(ratio=0.1), Table(), None,  # type: ignore[arg-type]
        run_id="r1", started=NOON, counts={}, rounds=[], stages=Stages(),
    )  # fmt: skip
    assert run["started_at"] <= run["finished_at"]
