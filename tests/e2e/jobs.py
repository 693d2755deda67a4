"""The jobs as a user runs them, and what a finished run left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from deltalake import DeltaTable

from tests.environment import JOBS

ROOT = Path(__file__).resolve().parents[2]
# A job's JVM lives for a minute: compiling its methods once and quickly, and a collector without threads of
# its own, spare two fifths of the processor's time.
# The code cache of such a JVM is small and was full after a minute; then nothing is compiled any more.
SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=240m"
# Compiling small queries to bytecode takes an eighth of a run. For a UI that nobody looks at each query is
# described, here in the shortest way. The small run that the others are held to is compiled, as a user's is.
_INTERPRETED = (
    "-Dspark.sql.codegen.wholeStage=false -Dspark.sql.codegen.factoryMode=NO_CODEGEN "
    "-Dspark.sql.ui.explainMode=simple"
)
#: Stands where users have their secrets while the small run is made; nothing that it writes may hold it.
PLANTED = "planted-secret-4711"
#: Variables that hold such secrets.
SECRETS = ("AWS_SECRET_ACCESS_KEY", "DATABRICKS_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
#: Of the small demo data set that most of these tests prune.
SESSIONS, RATIO = 600, 0.2


def command(
    job: str, *flags: str, master: str = "local[2]", conf: Mapping[str, str] | None = None
) -> list[str]:
    """A call of the environment's own spark-submit."""
    given = [part for key, value in (conf or {}).items() for part in ("--conf", f"{key}={value}")]
    submit = Path(sys.executable).with_name("spark-submit")
    return [str(submit), "--master", master, *given, str(ROOT / "jobs" / f"{job}.py"), *flags]


def environment(*, compiled: bool = False) -> dict[str, str]:
    """This process's, without another Spark's settings or the user's own; whether Spark compiles its queries.

    Of MLflow's variables there are those that a test has set (`tests.spark.conftest`).
    """
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK", "SPARK", *JOBS))}
    options = SHORT_LIVED if compiled else f"{SHORT_LIVED} {_INTERPRETED}"
    return {**own, **dict.fromkeys(SECRETS, PLANTED), "SPARK_SUBMIT_OPTS": options}


def submit(
    *flags: str,
    cwd: Path,
    job: str = "prune",
    master: str = "local[2]",
    conf: Mapping[str, str] | None = None,
    compiled: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a job from a folder that is not the project's."""
    return subprocess.run(
        command(job, *flags, master=master, conf=conf),
        cwd=cwd,
        env=environment(compiled=compiled),
        capture_output=True,
        text=True,
        timeout=900,
    )


@dataclass
class Run:
    """A finished run and its tables as delta-rs reads them."""

    workspace: Path
    output: str
    sessions: pd.DataFrame
    pruned: pd.DataFrame
    decisions: pd.DataFrame
    items: pd.DataFrame
    runs: pd.DataFrame


def run_small(folder: Path) -> Run:
    """Prune a small demo data set, from nothing; where that was done in this folder, read what it left."""
    said = folder / "output.txt"
    if not said.exists():
        given = {"--ratio": str(RATIO), "--demo-sessions": str(SESSIONS), "--training-epochs": "2"}
        flags = ["--report", *(part for pair in given.items() for part in pair)]
        secret = {"spark.hadoop.fs.s3a.secret.key": PLANTED}
        done = submit(*flags, cwd=folder, conf=secret, compiled=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert PLANTED not in done.stdout + done.stderr
        said.write_text(done.stdout, encoding="utf-8")
    workspace = folder / "workspace"
    tables = {
        name: DeltaTable(str(workspace / name)).to_pandas()
        for name in ("sessions", "pruned", "pruned_decisions", "pruned_items", "pruned_runs")
    }
    return Run(workspace, said.read_text(encoding="utf-8"), *tables.values())
