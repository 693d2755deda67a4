"""kill -9 of the driver, wherever it is: the former tables read as before, and the next run completes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from prune_lib.pipeline import run_prune
from prune_lib.settings import PruneSettings
from prune_lib.settings.sources import load
from tests.e2e.jobs import RATIO, Run, command, environment, submit

TABLES = ("pruned", "pruned_decisions", "pruned_items", "pruned_runs")
#: What a line of the log says when the run comes to a stage, or has written a table.
STAGES = ("read", "encode", "difficulty", "graph", "propagation", "sampling", "explanation", "write")
BETWEEN = ("wrote decisions", "wrote items", "wrote runs")


def started(*flags: str, cwd: Path) -> subprocess.Popen[str]:
    """The main job in a process group of its own."""
    return subprocess.Popen(
        command("prune", *flags),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def comes_to(moment: str) -> Callable[[str], bool]:
    """Whether a line says that the run has come there."""
    if moment.startswith("wrote "):
        table = f"_{moment.removeprefix('wrote ')}"
        return lambda line: " wrote " in line and line.rstrip().endswith(table)
    return lambda line: line.rstrip().endswith(f"{moment} ...")


def killed_at(moment: str, *flags: str, cwd: Path, delay: float = 0.0) -> None:
    """Run the job until it comes to a moment, and kill its JVM, its Python and their workers there."""
    job = started(*flags, cwd=cwd)
    assert job.stdout is not None
    here, lines = comes_to(moment), []
    for line in job.stdout:
        lines.append(line)
        if here(line):
            time.sleep(delay)
            break
    else:
        pytest.fail(f"the job ended before {moment}:\n{''.join(lines)}")
    os.killpg(job.pid, signal.SIGKILL)
    job.stdout.close()
    assert job.wait() == -signal.SIGKILL


class Output:
    """A workspace with the tables of a finished run, for runs that are to be killed."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.sessions = run.workspace / "sessions"
        for name in (*TABLES, "sessions"):
            shutil.copytree(run.workspace / name, self.workspace / name)
        (experts,) = (run.workspace / "experts").iterdir()
        # Another ratio than that of the finished run: whose rows are whose shows in their number, too.
        self.flags = ("--ratio", str(RATIO / 2), "--experts", str(experts))
        self.former = self.pruned()
        self.first = self.runs()

    def pruned(self) -> pd.DataFrame:
        return self.read("pruned").sort_values("prune_rank", ignore_index=True)

    def read(self, name: str) -> pd.DataFrame:
        return DeltaTable(str(self.workspace / name)).to_pandas()

    def runs(self) -> list[str]:
        return sorted(self.read("pruned_runs")["run_id"])

    def assert_as_before(self) -> None:
        pd.testing.assert_frame_equal(self.pruned(), self.former, check_exact=True)

    def assert_a_run_completes(self, run: Run, spark: SparkSession | None = None) -> None:
        """And its tables are of one run, all of it, with nothing doubled, lost or left behind.

        The run is submitted, or works on a session that is there, which spares a JVM.
        """
        if spark is None:
            done = submit(*self.flags, cwd=self.folder)
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            run_prune(load(PruneSettings, [*self.flags, "--workspace", str(self.workspace)]), spark)
        pruned, decisions = self.pruned(), self.read("pruned_decisions")
        (run_id,) = set(pruned["prune_run_id"])
        assert set(decisions["run_id"]) == set(self.read("pruned_items")["run_id"]) == {run_id}
        assert self.runs() == sorted([*self.first, run_id]), "no row of a run that was killed"
        assert sorted(decisions["session_id"]) == sorted(run.sessions["session_id"])
        # A smaller ratio is a prefix of the larger one's ranks.
        assert pruned["session_id"].tolist() == run.pruned["session_id"].tolist()[: len(pruned)]
        left = {p.name for p in self.workspace.iterdir()} | {
            p.name for p in (self.workspace / "experts").glob(".*")
        }
        # Of a run that could still say that it failed.
        known = {*TABLES, "sessions", "scores", "mlflow.db", "mlruns", "experts", "logs"}
        assert left <= known, left - known


@pytest.fixture
def output(run: Run, tmp_path: Path) -> Output:
    return Output(run, tmp_path)


def test_the_former_table_stays_between_the_commits_and_the_next_run_completes(
    run: Run, output: Output, spark: SparkSession
) -> None:
    # All methods write in the same way, and this one asks for no experts.
    killed_at("wrote runs", "--ratio", str(RATIO / 2), "--method", "random", cwd=output.folder)
    output.assert_as_before()
    output.assert_a_run_completes(run, spark)


@pytest.mark.soak
def test_the_former_table_stays_wherever_a_run_is_killed_and_the_next_run_completes(
    run: Run, output: Output
) -> None:
    for moment in (*STAGES, *BETWEEN):
        # Within the stage, not before it: its workers are at work.
        killed_at(moment, *output.flags, cwd=output.folder, delay=0 if "wrote" in moment else 1.0)
        output.assert_as_before()
    output.assert_a_run_completes(run)


@pytest.mark.soak
def test_a_first_run_that_was_killed_leaves_nothing_behind_that_the_next_one_minds(
    run: Run, tmp_path: Path
) -> None:
    """From nothing: the demo data half written, the experts half trained, the first tables half there."""
    flags = ("--ratio", str(RATIO), "--demo-sessions", "600", "--training-epochs", "2")
    for moment in ("demo data", "training", "training", *BETWEEN):
        killed_at(moment, *flags, cwd=tmp_path, delay=0 if "wrote" in moment else 2.0)
        assert not (tmp_path / "workspace" / "pruned" / "_delta_log" / f"{0:020}.json").exists()
    done = submit(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    workspace = tmp_path / "workspace"
    for name, key in (("pruned", "prune_rank"), ("pruned_decisions", "session_id"), ("pruned_items", "item")):
        one, two = (
            frame.drop(columns=[c for c in frame if "run_id" in c]).sort_values(key, ignore_index=True)
            for frame in (
                DeltaTable(str(run.workspace / name)).to_pandas(),
                DeltaTable(str(workspace / name)).to_pandas(),
            )
        )
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert len(DeltaTable(str(workspace / "pruned_runs")).to_pandas()) == 1
    assert not [p.name for p in (workspace / "experts").iterdir() if p.name.startswith(".")]


@pytest.mark.soak
@pytest.mark.parametrize("victim", ["java", "python"])
def test_what_is_left_of_a_driver_that_was_half_killed_ends_by_itself(
    run: Run, output: Output, victim: str
) -> None:
    """The JVM alone, or the Python that it started, as an out-of-memory killer takes them."""
    job = started(*output.flags, cwd=output.folder)
    assert job.stdout is not None
    try:
        for line in job.stdout:
            if comes_to("sampling")(line):
                break
        members = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
        (one,) = [p for p in members if p.name().startswith(victim) and _is_the_driver(p, victim)]
        one.kill()
        said, _ = job.communicate(timeout=60)  # until it has closed its output, too
        assert job.returncode != 0, said
        _, alive = psutil.wait_procs([p for p in members if p.pid != job.pid], timeout=60)
        assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    output.assert_as_before()
    output.assert_a_run_completes(run)


def _is_the_driver(process: psutil.Process, victim: str) -> bool:
    line = " ".join(process.cmdline())
    return "SparkSubmit" in line if victim == "java" else "jobs/prune.py" in line
