from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prune_lib import tracking
from prune_lib.tracking import Tracker, _store, add_artifact, tracked_run

# MLflow's own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DATABRICKS_RUNTIME_VERSION"):
        monkeypatch.delenv(name, raising=False)


def test_a_run_in_the_workspace_reads_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    client_of = pytest.importorskip("mlflow.tracking").MlflowClient
    workspace = tmp_path / "ws"
    report = tmp_path / "report.html"
    report.write_text("<p>kept</p>")
    settings = {"ratio": 0.1, "sampling": {"kappa": 0.5}, "long": "x" * 7000}
    with tracked_run(str(workspace), "prune", "r1", settings) as tracker:
        tracker.metrics({"coverage": 0.9, "nothing": None})
        for step, loss in enumerate((3.0, 2.0)):
            tracker.metrics({"loss": loss}, step=step)
        tracker.dict({"COVERED": 3}, "reasons.json")
        tracker.artifact(report)
    assert not tracker.warnings
    with pytest.raises(ZeroDivisionError), tracked_run(str(workspace), "prune", "r2", {}):
        _ = 1 / 0
    assert not [line for line in capfd.readouterr().err.splitlines() if line.strip()]

    client = client_of(tracking_uri=f"sqlite:///{workspace}/mlflow.db")
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "r1"
    assert run.data.params["ratio"] == "0.1" and run.data.params["sampling.kappa"] == "0.5"
    assert run.data.metrics == {"coverage": 0.9, "loss": 2.0}
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [0, 1]
    kept = workspace / "mlruns" / run.info.run_id / "artifacts"
    assert json.loads((kept / "reasons.json").read_text()) == {"COVERED": 3}
    assert (kept / "report.html").read_text() == "<p>kept</p>"
    runs = client.search_runs([run.info.experiment_id])
    assert {(r.info.run_name, r.info.status) for r in runs} == {
        ("r1", "FINISHED"),
        ("r2", "FAILED"),
    }


def test_the_users_own_store_and_experiment_are_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_of = pytest.importorskip("mlflow.tracking").MlflowClient
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = client_of(tracking_uri=uri)
    page = tmp_path / "report.html"
    page.write_text("<p>kept</p>")

    def tracked(name: str) -> None:
        with tracked_run(str(tmp_path / "ws"), "prune", "r1", {}) as tracker:
            pass
        run = client.get_run(tracker.run_id)
        assert run.info.status == "FINISHED"
        assert client.get_experiment(run.info.experiment_id).name == name
        assert not add_artifact(str(tmp_path / "ws"), "prune", "r1", page)
        assert [a.path for a in client.list_artifacts(tracker.run_id)] == ["report.html"]

    tracked("prune")
    # There, an experiment's name is a path of the workspace.
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "16.4")
    tracked("/Shared/prune")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "/Workspace/Shared/ours")
    tracked("/Workspace/Shared/ours")
    assert not (tmp_path / "ws").exists()
    # A workspace that is a volume looks like a folder, where SQLite could not write.
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert _store("/Volumes/main/prune/files") == (None, None)


def test_a_failure_of_tracking_is_a_warning_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "ws").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING), tracked_run(str(tmp_path / "ws"), "e", "r", {}) as t:
        t.metrics({"a": 1.0})
    assert t.run_id is None and len(t.warnings) == 1
    assert "does not track this run" in caplog.text
    with tracked_run(str(tmp_path / "other"), "e", "r", {}) as tracker:
        tracker.metrics({"not a number": "x"})  # type: ignore[dict-item]
        tracker.artifact(tmp_path / "absent.html")
    assert len(tracker.warnings) == 2


def test_without_mlflow_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with (
        caplog.at_level(logging.INFO, "prune_lib"),
        tracked_run(str(tmp_path), "e", "r", {"a": 1}) as tracker,
    ):
        tracker.metrics({"a": 1.0})
        tracker.dict({}, "a.json")
        tracker.artifact("nowhere")
    assert isinstance(tracker, Tracker) and tracker.run_id is None and not tracker.warnings
    assert [r.message for r in caplog.records] == ["MLflow is not installed: the run is not tracked"]


def test_importing_needs_no_mlflow() -> None:
    code = "import sys, prune_lib.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_server_that_does_not_answer_is_said_soon_and_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow.tracking")
    # Nothing listens on the port of discard; three attempts a second apart, not MLflow's own four minutes.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:planted@127.0.0.1:9")
    for name in ("MAX_RETRIES", "BACKOFF_FACTOR", "TIMEOUT"):
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}", raising=False)
    began = time.monotonic()
    with tracked_run(str(tmp_path), "prune", "r1", {"ratio": 0.1}) as tracker:
        tracker.metrics({"coverage": 0.5})
    assert time.monotonic() - began < 60
    (warning,) = tracker.warnings
    assert "does not track" in warning and "127.0.0.1" in warning and "planted" not in warning
    assert not (tmp_path / "mlflow.db").exists()


def test_a_server_that_is_silent_is_given_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing."""
    pytest.importorskip("mlflow.tracking")
    for name in ("MAX_RETRIES", "BACKOFF_FACTOR", "TIMEOUT"):
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}", raising=False)
    monkeypatch.setitem(tracking._AT_FIRST, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with tracked_run(str(tmp_path), "prune", "r1", {}) as tracker:
            pass
    assert time.monotonic() - began < 20 and "does not track" in tracker.warnings[0]
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30", "later questions may take their time"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    with tracking._first_question():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77", "the user's own"


def test_a_server_that_goes_away_is_asked_no_more() -> None:
    class Gone:
        calls = 0

        def log_batch(self, *_: object, **__: object) -> None:
            self.calls += 1
            raise RuntimeError("API request to http://h/api failed with exception: no route")

    gone = Gone()
    tracker = Tracker(gone, "r1")
    for _ in range(3):
        tracker.metrics({"coverage": 0.5})
    assert gone.calls == 1 and len(tracker.warnings) == 1
