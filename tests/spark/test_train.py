"""`train`: a bundle that pruning runs find, registered where it is asked for; every mistake a message."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyspark.sql import SparkSession

from prune_lib import ExpertsSettings, PruneSettings, UserError, session, train
from prune_lib.experts.bundle import Bundle
from prune_lib.pipeline import run_prune
from prune_lib.train_job import _check_device
from tests.spark.sessions import random_sessions

# How good the experts are is no question here.
TRAINING = {"epochs": 1, "dim": 8, "gate_epochs": 2}


@pytest.fixture(scope="module")
def workspace(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    rows = [(k, items) for k, items in enumerate(random_sessions(61, n=200, items=60))]
    table = spark.createDataFrame(rows, "session_id bigint, items array<bigint>")
    table.write.format("delta").save(str(folder / "sessions"))
    return folder


def settings(workspace: Path, **more: object) -> ExpertsSettings:
    return ExpertsSettings(workspace=str(workspace), training=TRAINING, **more)


def test_pruning_finds_what_was_trained_and_what_was_registered(spark: SparkSession, workspace: Path) -> None:
    done = train(settings(workspace, register_as="shop.experts", alias="champion"), spark)
    assert done.bundle is not None and done.registered == "models:/shop.experts@champion"
    assert done.bundle.path is not None and done.bundle.path.parent == workspace / "experts"
    assert "log-likelihood" in str(done) and "--experts models:/shop.experts@champion" in str(done)
    assert set(done.bundle.metrics["fold0"]["fairness"]["spearman"]) >= {"gnn", "mixture", "adjusted"}
    asked = {"ratio": 0.3, "workspace": str(workspace), "dry_run": True}
    for given, place in (
        ({"experts": done.registered}, done.registered),
        ({"training": TRAINING}, done.bundle.path),
    ):
        # It looks for them as a run does; that a run scores by those it is given, test_samples shows.
        plan = str(run_prune(PruneSettings(**asked, **given), spark))
        assert f"experts: {place} (version {done.bundle.version})" in plan


def test_a_folder_of_the_users_own(
    spark: SparkSession, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(settings(workspace, output=str(tmp_path / "mine")), spark)
    assert done.registered is None and Bundle.load(tmp_path / "mine").version == done.bundle.version
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is not empty and holds no bundle"):
        train(settings(workspace, output=str(tmp_path / "full")), spark)
    assert (tmp_path / "full" / "letter.txt").read_text() == "dear"
    # A file `hash` makes no bundle, and what somebody puts beside one's files stays.
    (tmp_path / "full" / "hash").write_text("abc")
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    for place in ("full", "mine"):
        with pytest.raises(UserError, match="is not empty and holds no bundle"):
            train(settings(workspace, output=str(tmp_path / place)), spark)
    assert (tmp_path / "full" / "letter.txt").exists() and (tmp_path / "mine" / "thesis.tex").exists()
    with pytest.raises(UserError, match="may not be written.*Give another --output"):
        train(settings(workspace, output="/proc/experts"), spark)
    with pytest.raises(UserError, match="is a file"):
        train(settings(workspace, output=str(tmp_path / "full" / "letter.txt")), spark)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place in (".", "./", str(tmp_path)):
        with pytest.raises(UserError, match="takes the place of its folder"):
            train(settings(workspace, output=place), spark)


def test_a_dry_run_writes_nothing(
    spark: SparkSession, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_shipped", set())
    done = train(settings(tmp_path, input=str(workspace / "sessions"), dry_run=True), spark)
    assert "nothing was written" in str(done) and done.bundle is None
    assert not list(tmp_path.iterdir())
    assert session._shipped == {spark.sparkContext.applicationId}, "workers of a given session have the code"
    with pytest.raises(UserError, match="There is no table"):
        train(settings(tmp_path, input=str(tmp_path / "none")), spark)


@pytest.mark.parametrize("distributor", ["driver", "spark"])
def test_a_gpu_is_asked_of_the_machine_that_trains(
    monkeypatch: pytest.MonkeyPatch, spark: SparkSession, workspace: Path, tmp_path: Path, distributor: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = ExpertsSettings(
        workspace=str(tmp_path),
        input=str(workspace / "sessions"),
        training={"device": "cuda", "distributor": distributor},
        dry_run=True,
    )
    with pytest.raises(UserError, match="finds no GPU here"):
        train(asked, spark)
    far = SimpleNamespace(sparkContext=SimpleNamespace(master="spark://far:7077"))
    if distributor == "spark":  # the driver trains nothing
        _check_device(far, asked)
    else:
        with pytest.raises(UserError, match="finds no GPU here"):
            _check_device(far, asked)


def test_a_window_is_trained_on_and_told(spark: SparkSession, tmp_path: Path) -> None:
    newest = datetime(2026, 5, 10, 12, tzinfo=timezone.utc)
    rows = [
        (k, items, [newest - timedelta(hours=k, minutes=len(items) - m) for m in range(len(items))])
        for k, items in enumerate(random_sessions(62, n=200, items=60))
    ]
    table = spark.createDataFrame(rows, "session_id bigint, items array<bigint>, times array<timestamp>")
    table.write.format("delta").save(str(tmp_path / "sessions"))
    assert "since 4d: sessions" in str(train(settings(tmp_path, since="4d", dry_run=True), spark))
    done = train(settings(tmp_path, since="4d"), spark)
    # The newest session ends some minutes before noon: four days before that, too.
    assert done.record()["input"]["sessions"] == 97 and ", since 2026-05-06 11:" in str(done)
    assert done.record()["since"].startswith("2026-05-06T11:")
    with pytest.raises(UserError, match="no session would be left"):
        train(settings(tmp_path, since="2026-06-01"), spark)
