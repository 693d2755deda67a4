from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


def test_of_a_new_store_nothing_is_said(tmp_path: Path) -> None:
    """In a process of its own: MLflow sets its level when it is imported, which here it is already."""
    pytest.importorskip("mlflow")
    code = (
        "import sys\nfrom prune_lib.tracking import tracked_run\n"
        "with tracked_run(sys.argv[1], 'e', 'r', {}): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == done.stderr == "" and (tmp_path / "mlflow.db").is_file()


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


def test_a_server_that_did_not_answer_is_not_asked_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation has a hundred runs, and each question costs twenty seconds."""
    client_of = pytest.importorskip("mlflow.tracking").MlflowClient
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    asked: list[str] = []

    def ask(_: object, name: str) -> None:
        asked.append(name)
        raise RuntimeError("API request to http://127.0.0.1:9/api failed with exception: no route")

    monkeypatch.setattr(client_of, "get_experiment_by_name", ask)
    monkeypatch.setattr(tracking, "_silent", {})
    for name in ("r1", "r2"):
        with tracked_run(str(tmp_path), "prune", name, {}) as tracker:
            pass
        assert "does not track" in tracker.warnings[0] and "no route" in tracker.warnings[0]
    assert "not asked again" in add_artifact(str(tmp_path), "prune", "r1", tmp_path / "report.html")[0]
    assert asked == ["prune"]
    monkeypatch.setattr(tracking, "_ASKED_AGAIN_SECONDS", -1)
    with tracked_run(str(tmp_path), "prune", "r3", {}):
        pass
    assert len(asked) == 2, "after a while it is"


class _Answers(BaseHTTPRequestHandler):
    """As much of MLflow's server as a run without parameters asks."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        run = {"run_id": "abc", "run_name": "r1", "experiment_id": "1", "status": "FINISHED"}
        said = {
            "experiment": {"experiment_id": "1", "name": "prune", "lifecycle_stage": "active"},
            "run": {"info": run, "data": {}},
            "run_info": run,
        }
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())


def test_of_a_server_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """MLflow prints the run's address on stdout, where --json has one object."""
    pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with tracked_run(str(tmp_path), "prune", "r1", {}) as tracker:
            assert tracker.run_id == "abc"
        server.shutdown()
    assert not tracker.warnings and capfd.readouterr().out == ""
