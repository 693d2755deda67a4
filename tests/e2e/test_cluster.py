"""On clusters the same tables, bit for bit, as in local mode; also where an executor ends on the way."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.e2e.jobs import RATIO, SHORT_LIVED, Run, command, environment, submit

# A session's row by this column, an item's by that.
KEYS = {"out": "session_id", "out_decisions": "session_id", "out_items": "item"}
EXECUTOR = "CoarseGrainedExecutorBackend"
# Executors do not have the driver's own flags.
EXECUTORS = {"spark.executor.extraJavaOptions": SHORT_LIVED, "spark.ui.enabled": "false"}


@pytest.fixture(scope="module")
def shuffled(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run's sessions in another order, in several files."""
    place = tmp_path_factory.mktemp("shuffled") / "sessions"
    rows = run.sessions.sample(frac=1.0, random_state=3, ignore_index=True)
    for part in (rows[:100], rows[100:110], rows[110:]):
        write_deltalake(str(place), part, mode="append")
    return place


def flags(run: Run, source: Path, output: Path) -> list[str]:
    (experts,) = (run.workspace / "experts").iterdir()
    return [
        *("--ratio", str(RATIO), "--input", str(source), "--output", str(output)),
        *("--experts", str(experts), "--workspace", str(output.parent)),
    ]


def assert_same_tables(run: Run, output: Path) -> None:
    wanted = (run.pruned, run.decisions, run.items)
    for (name, key), expected in zip(KEYS.items(), wanted, strict=True):
        found = DeltaTable(str(output.with_name(name))).to_pandas()
        one, two = (
            frame.drop(columns=[c for c in frame if "run_id" in c]).sort_values(key, ignore_index=True)
            for frame in (expected, found)
        )
        pd.testing.assert_frame_equal(one, two, check_exact=True)


def _said_by_us(log: str) -> str:
    """Spark's own executors, shut down with a run that failed, fill pages."""
    return "\n".join(line for line in log.splitlines() if not line.lstrip().startswith("at "))[:5000]


@pytest.mark.soak  # the standalone cluster below is in every run
def test_a_local_cluster_without_adaptive_execution(run: Run, shuffled: Path, tmp_path: Path) -> None:
    done = submit(
        *flags(run, shuffled, tmp_path / "out"),
        cwd=tmp_path,
        master="local-cluster[2,1,1024]",
        conf={
            **EXECUTORS,
            "spark.sql.adaptive.enabled": "false",
            "spark.sql.shuffle.partitions": "7",
        },
    )
    assert done.returncode == 0, done.stdout + _said_by_us(done.stderr)
    assert_same_tables(run, tmp_path / "out")
    assert not (tmp_path / "checkpoints").exists(), "what the run needed on its way is gone"


@contextmanager
def daemon(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon of the environment's own Spark, ended with all that it started."""
    spark_class = Path(sys.executable).with_name("spark-class")
    own = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_JAVA_OPTS": SHORT_LIVED}
    with (folder / f"{arguments[0].rsplit('.', 1)[-1]}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(spark_class), *arguments],
            env={**environment(), **own},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()  # first: a worker would start its executors again
        for member in children:
            with suppress(psutil.NoSuchProcess):  # it ended by itself in the meantime
                member.kill()
        process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A standalone master and two workers on the loopback address, each in its own folder."""
    home, deploy = "127.0.0.1", "org.apache.spark.deploy"
    with socket.socket() as free:
        free.bind((home, 0))
        port = free.getsockname()[1]
    for name in ("master", "one", "two"):
        (tmp_path / name).mkdir()
    with ExitStack() as running:
        address = ("--host", home, "--port", str(port), "--webui-port", "0")
        running.enter_context(daemon(f"{deploy}.master.Master", *address, folder=tmp_path / "master"))
        for name in ("one", "two"):
            given = ("--host", home, "--port", "0", "--webui-port", "0", "--cores", "1", "--memory", "1g")
            folder = tmp_path / name
            running.enter_context(
                daemon(
                    *(f"{deploy}.worker.Worker", *given, "--work-dir", str(folder)),
                    f"spark://{home}:{port}",
                    folder=folder,
                )
            )
        # Workers and the job ask for the master until it answers.
        yield f"spark://{home}:{port}"


@pytest.mark.parametrize(
    ("moment", "delay"),
    [
        ("graph:", 0.0),
        pytest.param("difficulty ...", 4.0, marks=pytest.mark.soak),
        pytest.param("sampling ...", 2.0, marks=pytest.mark.soak),
    ],
    ids=["after the graph", "while it scores", "while it samples"],
)
def test_a_standalone_cluster_that_loses_an_executor(
    run: Run, shuffled: Path, tmp_path: Path, cluster: str, moment: str, delay: float
) -> None:
    """What it held of the sessions, scores and edges is gone with it."""
    job = subprocess.Popen(
        command(
            "prune",
            *flags(run, shuffled, tmp_path / "out"),
            master=cluster,
            conf={
                **EXECUTORS,
                "spark.driver.host": "127.0.0.1",
                "spark.driver.bindAddress": "127.0.0.1",
                "spark.executor.memory": "1g",
            },
        ),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert job.stdout is not None
    killed, lines = 0, []
    try:
        for line in job.stdout:
            lines.append(line)
            if moment in line and not killed:
                time.sleep(delay)
                killed = _kill_one_executor()
        assert job.wait(timeout=600) == 0, _said_by_us("".join(lines))
    finally:
        job.kill()
    assert killed, "".join(lines)
    assert_same_tables(run, tmp_path / "out")


def _kill_one_executor() -> int:
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            if any(EXECUTOR in word for word in process.cmdline()):
                process.kill()
                return process.pid
    return 0
