"""The evaluation as a user runs it: `spark-submit jobs/evaluate.py`, killed on the way and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable

from prune_lib.evaluation.schemas import EVALUATION
from tests.e2e.jobs import command, environment

FLAGS = (
    "--quick",
    *("--demo-sessions", "800", "--training-epochs", "1", "--fit-steps", "60"),
    *("--targets", "gru4rec,session-knn,markov", "--processes", "1"),
)
# Nothing to prune and no training to tune: the cells are those that FLAGS have of all the data, too.
FEWER = (
    *("--quick", "--demo-sessions", "800", "--ratios", "1"),
    *("--targets", "session-knn,markov", "--processes", "1"),
)


def start(*flags: str, cwd: Path) -> subprocess.Popen[str]:
    """The job by the environment's own spark-submit, in a process group of its own."""
    return subprocess.Popen(
        command("evaluate", *flags),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def written(folder: Path, what: str) -> dict[Path, int]:
    """Working files, and when they were written: `cells/*`, or notes on what was pruned."""
    files = (folder / "workspace" / "evaluate" / "workspace").glob(what)
    return {file: file.stat().st_mtime_ns for file in files if not file.name.startswith(".")}


def killed_after_a_cell(*flags: str, cwd: Path) -> dict[Path, int]:
    """Start an evaluation, kill all of it once a cell is done, and give the cells that are."""
    job = start(*flags, cwd=cwd)
    deadline = time.monotonic() + 600
    while not written(cwd, "cells/*"):
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()[0]
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    return written(cwd, "cells/*")


def completed(folder: Path) -> str:
    """What an evaluation by FLAGS says, which goes on where the one before was killed."""
    job = start(*FLAGS, cwd=folder)
    output = job.communicate(timeout=900)[0]
    assert job.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, int], str]:
    """The workspace, what was done when the first run was killed, and what the second one said."""
    folder = tmp_path_factory.mktemp("user")
    done = killed_after_a_cell(*FEWER, cwd=folder)
    return folder / "workspace", done, completed(folder)


def test_a_killed_evaluation_goes_on_where_it_was(finished: tuple[Path, dict[Path, int], str]) -> None:
    _, done, output = finished
    assert done and {cell: cell.stat().st_mtime_ns for cell in done} == done
    assert "cells are done already" in output


@pytest.mark.soak  # the run that is killed above prunes and tunes nothing
def test_what_was_pruned_and_trained_before_a_kill_is_not_done_again(tmp_path: Path) -> None:
    done = killed_after_a_cell(*FLAGS, cwd=tmp_path)
    pruned = written(tmp_path, "*/pruned/*/pruned.json")
    output = completed(tmp_path)
    assert done and {cell: cell.stat().st_mtime_ns for cell in done} == done
    # Of both methods on the test's training data, of random on that of the validation.
    assert len(pruned) == 3 and written(tmp_path, "*/pruned/*/pruned.json") == pruned
    assert "cells are done already" in output


def test_every_table_is_there_with_its_columns_and_their_meaning(
    finished: tuple[Path, dict[Path, int], str],
) -> None:
    workspace, _, output = finished
    for kind, columns in EVALUATION.items():
        table = DeltaTable(str(workspace / ("evaluation" if kind == "values" else f"evaluation_{kind}")))
        fields = {f.name: f for f in table.schema().fields}
        assert list(fields) == [c.name for c in columns]
        assert all(fields[c.name].metadata.get("comment") == c.comment for c in columns)
    values = DeltaTable(str(workspace / "evaluation")).to_pandas()
    recall = values[(values["metric"] == "recall@20") & (values["band"] == "all")]
    # The neural target tried two learning rates on all of validation's data and on a tenth of it.
    assert (recall["split"] == "validation").sum() == 4
    recall = recall[recall["split"] == "test"]
    assert set(recall["method"]) == {"all", "graph", "random"}
    assert set(recall["target"]) == {"gru4rec", "session-knn", "markov"}
    assert len(recall) == 9
    # On the demo's planted patterns all the data beat a tenth of them, whoever chooses.
    best = recall.pivot_table(index="target", columns="method", values="value")
    assert (best["all"] > best["random"]).loc[["session-knn", "markov"]].all()
    run = DeltaTable(str(workspace / "evaluation_runs")).to_pandas().iloc[0]
    assert json.loads(run["settings"])["quick"] is True
    assert run["command"].startswith("jobs/evaluate.py --quick")
    assert "Recall@20 in percent" in output


def test_the_report_and_the_cells_lie_beside_each_other(finished: tuple[Path, dict[Path, int], str]) -> None:
    report = finished[0] / "evaluation_report"
    assert "session-knn" in (report / "results.md").read_text()
    cells = pd.read_parquet(report / "cells" / "workspace.parquet")
    assert len(cells) == 9 + 4
    assert list(report.glob("*.svg"))


def test_a_mistake_ends_with_exit_code_2(tmp_path: Path) -> None:
    job = start("--targets", "gru", "--ratios", "1.5", cwd=tmp_path)
    output = job.communicate(timeout=120)[0]
    assert job.returncode == 2
    assert "Did you mean gru4rec?" in output and "Traceback" not in output
    assert not (tmp_path / "workspace").exists()
