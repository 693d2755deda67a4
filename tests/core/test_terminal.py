"""What a job shows: the summary, JSON, quiet, the live line on a terminal, spark-submit's own stderr."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date, datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from prune_lib.cli import run_job
from prune_lib.errors import InputError
from prune_lib.experts.progress import PROGRESS, EpochProgress, Progress
from prune_lib.launcher import job_script, launcher
from prune_lib.notebook import table_of
from prune_lib.schemas import REASONS, RUNS
from prune_lib.settings import PruneSettings
from prune_lib.stages import Stage, Stages
from prune_lib.summary import WHY, Summary, described
from prune_lib.terminal.live import LiveLine
from prune_lib.terminal.logs import Remembered, logging_to_stderr
from prune_lib.terminal.output import print_text, to_json
from prune_lib.terminal.streams import own_stderr, stdout_is_terminal

HERE = Path(__file__).parent
RUN: dict[str, Any] = {
    "run_id": "20260102T030405-0123abcd",
    "started_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    "method": "graph",
    "unit": "session",
    "ratio": 0.1,
    "budget": "interactions",
    "seed": 0,
    "settings": '{"ratio": 0.1}',
    "input": "/data/clicks",
    "input_version": 3,
    "sessions_before": 20_000,
    "sessions_after": 2_461,
    "interactions_before": 103_733,
    "interactions_after": 10_370,
    "items_before": 3_292,
    "items_after": 3_001,
    "demand": "forecast",
    "gini_before": 0.612,
    "gini_after": 0.471,
    "duplicates_before": 2_817,
    "duplicates_after": 0,
    "bot_limits": (57.0, 10.2),
    "churn": (
        "20260101T030405-89abcdef",
        2_450,
        2_300,
        150,
        {"COVERED": 100, "BUDGET": 30, "GONE": 20},
        161,
        120,
    ),
    "reasons": {"COLD_ITEM": 541, "NEW_PATTERN": 1370, "REPRESENTATIVE": 550, "COVERED": 17_530, "BUDGET": 9},
    "stages": [("read", 2.0, 20_000), ("training", 60.0, None), ("difficulty", 20.0, 20_000)],
    "rounds": [("coverage", 1, 0.5, 10, 5, 30, 1.0, 100, 0)],
    "warnings": [
        "the names of two columns need Delta's column mapping, " + "which is said at some length " * 4
    ],
}
SCORING = {"score": "nll", "experts": "ee49044650a3", "mean_loss": 5.874, "reused_sessions": 12_000}


def stages() -> Stages:
    done = [Stage("read", 2.0), Stage("encode", 1.5), Stage("training", 60.0), Stage("write", 6.5)]
    return Stages(done)


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    ours, root = logging.getLogger("prune_lib"), logging.getLogger()
    former = (ours.handlers, ours.level, ours.propagate, list(root.handlers))
    yield
    ours.handlers, ours.propagate, root.handlers = former[0], former[2], former[3]
    ours.setLevel(former[1])


# ------------------------------------------------------------------------------------------ the summary


def test_the_summary_is_the_golden_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: str(Path(sys.executable).parent / name))
    text = str(Summary.of(RUN, "/data/kept", stages(), SCORING, report="/data/kept_report.html"))
    assert max(map(len, text.splitlines())) <= 100
    assert text == (HERE / "golden_summary.txt").read_text(encoding="utf-8").rstrip("\n"), f"\n{text}"


def test_a_summary_from_the_table_says_the_same_without_what_no_table_holds() -> None:
    fresh = str(Summary.of(RUN, "/data/kept"))
    assert str(Summary.of(described(RUN), "/data/kept")) == fresh
    assert re.search(r"training +60\.0", fresh) and "report" not in fresh


def test_a_printed_command_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = tmp_path / "an env" / "bin"
    beside.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert launcher() == "spark-submit", "there is none"
    (beside / "spark-submit").touch()
    assert launcher() == f"'{beside}/spark-submit'"
    monkeypatch.chdir(tmp_path)
    assert launcher() == "'an env/bin/spark-submit'"
    assert "  'an env/bin/spark-submit' jobs/explain.py --output '/my data/kept' --session ID" in str(
        Summary.of(RUN, "/my data/kept")
    )
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert launcher() == "'an env/bin/spark-submit'", "another Spark's would lack the packages"
    monkeypatch.setattr("shutil.which", lambda name: str(beside / name))
    assert launcher() == "spark-submit"


def test_a_printed_command_names_the_job_beside_the_one_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = tmp_path / "checkout" / "jobs"
    jobs.mkdir(parents=True)
    for name in ("prune", "explain"):
        (jobs / f"{name}.py").touch()
    monkeypatch.setattr(sys, "argv", [str(jobs / "prune.py"), "--ratio", "0.1"])
    monkeypatch.chdir(tmp_path / "checkout")
    assert job_script("explain") == "jobs/explain.py"
    monkeypatch.chdir(tmp_path)
    assert job_script("explain") == "checkout/jobs/explain.py"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert job_script("explain") == str(jobs / "explain.py")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/prune"])
    assert job_script("explain") == "jobs/explain.py"


def test_times_are_told_in_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        noon = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
        # As Spark gives a row's times: those of the machine's clock, without a zone.
        of_row = noon.astimezone().replace(tzinfo=None)
        run = described({**RUN, "since": of_row, "started_at": of_row})
        assert run["since"] == noon and f"{run['started_at']:%H:%M}" == "12:00"
        assert "sessions since 2026-05-01 12:00:00 UTC" in str(Summary.of(run, "shop.kept"))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_samples_are_no_sessions() -> None:
    run = {**RUN, "unit": "prefix", "budget": "samples", "sessions_before": 24_610, "warnings": None}
    text = str(Summary.of(run, "shop.kept"))
    assert "a budget of 2,461" in text and "AS samples" in text and "targets" in text
    assert "sessions  " not in text and "FROM shop.kept_decisions" in text


def test_every_reason_has_its_words_and_every_struct_its_fields() -> None:
    assert list(WHY) == list(REASONS)
    ddl = {column.name: column.type.replace("`", "") for column in RUNS}
    named = described(RUN)
    for key in ("stages", "rounds"):
        assert list(named[key][0]) == re.findall(r"(\w+): \w+", ddl[key])
    for key in ("bot_limits", "churn"):
        assert list(named[key]) == re.findall(r"(\w+): \w+", ddl[key])


def test_hostile_names_are_text() -> None:
    run = {**RUN, "input": "a\n\x1b[31m<script>", "warnings": ["<b>\x1b[2J"]}
    text = str(Summary.of(run, "/data/x'; rm`<b>"))
    assert "\x1b" not in text and "--output '/data/x'\"'\"'; rm`<b>'" in text
    assert "delta.`/data/x'; rm``<b>_decisions`" in text
    html = table_of(run, "/data/<img onerror=x>")
    assert "<script" not in html and "<img" not in html and "<b>\\x1b" not in html
    assert "&lt;script&gt;" in html and "&lt;img onerror=x&gt;" in html
    # Right on a light and a dark page: no colour of its own.
    assert not re.search(r"#[0-9a-f]{3,6}\b|rgb|white|black", html) and "currentColor" in html


# ------------------------------------------------------------------------------- stdout: text and JSON


def run(job: Any, tmp_path: Path, *more: str) -> int:
    return run_job(PruneSettings, job, ["--ratio", "0.1", "--workspace", str(tmp_path), *more])


def test_json_is_alone_on_stdout_and_valid_whatever_is_in_it(tmp_path, capsys) -> None:
    run_of = {**RUN, "input": 'a"\n\ud800\x1b', "gini_before": float("nan"), "gini_after": np.float32("inf")}

    def job(settings: PruneSettings) -> object:
        logging.getLogger("prune_lib").info("read")
        return Summary("for people", run_of, {"mean_loss": np.float64(0.5), "n": np.int64(3)}, "/data/kept")

    assert run(job, tmp_path, "--json") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 and "read" in err and out.isascii()
    said = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert said["job"] == "prune" and said["tables"]["runs"] == "/data/kept_runs"
    assert said["run"]["gini_before"] is None and said["run"]["gini_after"] is None
    assert said["run"]["started_at"] == "2026-01-02T03:04:05+00:00"
    assert said["run"]["input"] == run_of["input"] and said["run"]["settings"] == {"ratio": 0.1}
    assert said["run"]["stages"][0] == {"name": "read", "seconds": 2.0, "rows": 20_000}
    assert said["scoring"] == {"mean_loss": 0.5, "n": 3} and said["warnings"] == RUN["warnings"]


def test_other_values_as_json(tmp_path) -> None:
    value = {1: (date(2026, 1, 2), tmp_path, b"\x01", {3}), "rows": np.arange(2), "stage": Stage("x", 1.0)}
    assert json.loads(to_json(value)) == {
        "1": ["2026-01-02", str(tmp_path), "01", [3]],
        "rows": [0, 1],
        "stage": {"name": "x", "seconds": 1.0, "rows": None},
    }


def test_failures_as_json(tmp_path, capsys) -> None:
    def fails(settings: PruneSettings) -> object:
        raise InputError("there is no table")

    assert run(fails, tmp_path, "--json") == 2
    out, err = capsys.readouterr()
    error = {"kind": "InputError", "message": "there is no table", "exit_code": 2}
    assert json.loads(out) == {"job": "prune", "error": error} and "there is no table" in err

    def breaks(settings: PruneSettings) -> object:
        raise KeyboardInterrupt

    assert run(breaks, tmp_path, "--json") == 130
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "Interrupted"
    # Wrong settings, known before they are read as a whole.
    assert run_job(PruneSettings, fails, ["--ratio", "7", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "SettingsError"
    assert run(fails, tmp_path, "--json", "--no-json") == 2
    assert capsys.readouterr().out == ""


def test_the_environment_asks_for_json_too(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PRUNE_JSON", "yes")
    assert run_job(PruneSettings, lambda settings: "done", ["--ratio", "7"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 2
    assert run(lambda settings: "done", tmp_path) == 0
    assert json.loads(capsys.readouterr().out) == {"job": "prune", "text": "done"}


def test_quiet(tmp_path, capsys) -> None:
    def job(settings: PruneSettings) -> object:
        log = logging.getLogger("prune_lib")
        log.info("read")
        log.warning("few rows")
        logging.getLogger("other").warning("of a library")
        return "kept"

    assert run(job, tmp_path, "--quiet") == 0
    out, err = capsys.readouterr()
    assert out == "" and [line[9:] for line in err.splitlines()][:1] == ["warning: few rows"]
    assert "read" not in err
    assert run(job, tmp_path, "--quiet", "--json") == 0
    assert json.loads(capsys.readouterr().out)["text"] == "kept"


def test_log_lines_as_json(tmp_path, capsys) -> None:
    def job(settings: PruneSettings) -> object:
        log = logging.getLogger("prune_lib")
        stages = Stages(run_id="r1")
        with stages.stage("read") as stage:
            stage.rows = 1_000
            log.info('a "quoted"\nline \ud800 of %s', "ours")
        stages.warn("few rows")
        with stages.stage("sample"):
            raise ValueError("broken")

    assert run(job, tmp_path, "--log-json") == 1
    err = capsys.readouterr().err.splitlines()
    lines = [json.loads(line) for line in err if line.startswith("{")]
    # What is said of the failure at the end is for people, as without the flag; so is the file it names.
    assert "broken" in "\n".join(err[len(lines) :])
    assert "\\ud800 of ours" in next((tmp_path / "logs").iterdir()).read_text()
    assert [line["message"] for line in lines] == [
        "read ...",
        'a "quoted"\nline \ud800 of ours',
        "read: 1,000 rows, " + lines[2]["message"][-5:],
        "few rows",
        "sample ...",
    ]
    assert [line.get("stage") for line in lines] == ["read", "read", "read", None, "sample"]
    assert [line.get("run") for line in lines] == ["r1", "r1", "r1", None, "r1"]
    assert {line["job"] for line in lines} == {"prune"} and lines[3]["level"] == "warning"
    assert lines[2]["rows"] == 1_000 and lines[2]["seconds"] >= 0
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)


def test_a_summary_in_colours_is_the_same_text(monkeypatch, capsys) -> None:
    text = str(Summary.of({**RUN, "input": "[red]x[/red]"}, "/data/kept", stages(), SCORING))
    monkeypatch.setattr("prune_lib.terminal.output.stdout_is_terminal", lambda: True)
    print_text(text)
    out = capsys.readouterr().out
    assert "\x1b[" in out and re.sub(r"\x1b\[[\d;]*m", "", out) == text + "\n"


def test_stdout_of_a_test_is_no_terminal() -> None:
    assert not stdout_is_terminal() and not own_stderr(clean=True)


# -------------------------------------------------------------------------- stderr: a line that is redrawn


class Screen:
    """A terminal that remembers what was written to it."""

    def __init__(self) -> None:
        ours, self.theirs = pty.openpty()
        self.file = os.fdopen(self.theirs, "w", encoding="utf-8")
        self.read: list[bytes] = []
        self._reader = threading.Thread(target=self._follow, args=(ours,), daemon=True)
        self._reader.start()

    def _follow(self, ours: int) -> None:
        while True:
            try:
                data = os.read(ours, 65_536)
            except OSError:  # Linux's way to say that the other end was closed
                return
            if not data:
                return
            self.read.append(data)

    def text(self) -> str:
        """All of it, once the other end is closed."""
        self.file.close()
        self._reader.join(10)
        return b"".join(self.read).decode()


def shown(written: str) -> list[str]:
    """What stays on a screen, of the few codes that move its cursor and wipe its lines."""
    lines, row, column = [""], 0, 0
    for code, char in re.findall(r"\x1b\[([?\d;]*[A-Za-z])|([^\x1b])", written):
        if code.endswith("A"):
            row = max(0, row - int(code[:-1] or 1))
        elif code == "2K":
            lines[row] = ""
        elif char == "\r":
            column = 0
        elif char == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif char:
            lines[row] = lines[row][:column].ljust(column) + char + lines[row][column + 1 :]
            column += 1
    return [line for line in lines if line.strip()]


def test_a_terminal_sees_the_stage_under_way_and_what_is_done(monkeypatch) -> None:
    screen = Screen()
    console = Console(
        file=screen.file, force_terminal=True, width=80, highlight=False, color_system="standard"
    )
    clock = SimpleNamespace(now=0.0)
    log = logging.getLogger("prune_lib")
    with LiveLine(console, tasks=lambda: (3, 40)) as live:
        live.setFormatter(logging.Formatter("%(message)s"))
        log.handlers, log.propagate = [live], False
        log.setLevel(PROGRESS)
        run = Stages()
        with run.stage("read") as stage:
            stage.rows = 20_000
            live._tasks = (3, 40)
            live._live.refresh()
        with run.stage("training"), EpochProgress("epoch 1 [b]", 200, 0, shown=True) as told:
            monkeypatch.setattr(
                "prune_lib.experts.progress.time", SimpleNamespace(monotonic=lambda: clock.now)
            )
            clock.now = told._drawn + 1
            told.update(50)
            live._live.refresh()
            run.warn("[red]few[/red] rows")
    text = screen.text()
    assert "Spark: 3 of 40 tasks" in text and "epoch 1 [b] " in text and "25 % of 200" in text
    assert "\x1b[?25l" in text and text.rstrip("\r\n").rpartition("\x1b[?25h")[1], "the cursor comes back"
    stays = shown(text)
    assert [line.split()[:2] for line in stays] == [
        ["✓", "read"],
        ["[red]few[/red]", "rows"],
        ["✓", "training"],
    ]
    assert "20,000 rows" in stays[0]


def test_a_failure_leaves_no_line_behind() -> None:
    screen = Screen()
    console = Console(file=screen.file, force_terminal=True, width=80)
    log = logging.getLogger("prune_lib")
    with pytest.raises(RuntimeError), LiveLine(console, tasks=lambda: None) as live:
        log.handlers, log.propagate = [live], False
        log.setLevel(PROGRESS)
        with Stages().stage("read"):
            live._live.refresh()
            raise RuntimeError
    assert "read" not in "".join(shown(screen.text()))


@pytest.mark.parametrize(("term", "drawn"), [("xterm", True), ("dumb", False), (None, False)])
def test_a_line_is_redrawn_only_where_it_can_be(monkeypatch, term: str | None, drawn: bool) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen.file)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    with logging_to_stderr(Remembered()), Stages().stage("read"):
        logging.getLogger("other").warning("of a library")
    text = screen.text()
    assert ("\x1b[?25l" in text) == drawn and ("read ..." in text) != drawn
    assert "of a library" in text and not re.search(r"\x1b\[[\d;]*3[0-7]m", text), "NO_COLOR"


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("prune_lib.experts.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    lines = Remembered()
    with logging_to_stderr(lines, verbose=True), EpochProgress("epoch 1", 400, 0, shown=True) as told:
        for _ in range(40):
            clock.now += 1.0
            told.update(10)
    said = [line[9:] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "epoch 1: 150 of 400 sessions, about 00:25 left",
        "epoch 1: 300 of 400 sessions, about 00:10 left",
    ]
    assert len(lines.lines) == 2


def test_a_training_in_another_process_tells_here(capsys) -> None:
    from prune_lib.experts.workers import _JsonLines, _relay

    sent = logging.getLogger("prune_lib.experts.progress")
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    logging.getLogger("prune_lib").setLevel(PROGRESS)
    sent.propagate, sent.handlers = False, [_JsonLines()]
    try:
        with EpochProgress("epoch 1", 40, 1, shown=True):
            sent.info("halfway")
    finally:
        sent.propagate, sent.handlers = True, []
    lines = io.StringIO(capsys.readouterr().out + "printed by a library\n")
    logging.getLogger("prune_lib").handlers = [handler]
    _relay(lines)
    assert [(r.levelno, r.getMessage()) for r in seen if r.levelno >= logging.INFO] == [
        (logging.INFO, "halfway"),
        (logging.INFO, "printed by a library"),
    ]
    told = [r.progress for r in seen if hasattr(r, "progress")]
    assert told == [Progress(1, "epoch 1", 0, 40), Progress(1, "epoch 1", None, 40)]


# ------------------------------------------------------------------------------------ behind spark-submit

# As spark-submit does: one pipe for stdout and stderr, copied to its own stdout.
SUBMIT = """
import os, subprocess, sys
child = subprocess.run([sys.executable, "-c", sys.argv[2]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    text=True, env={**os.environ, "PYSPARK_GATEWAY_PORT": "1"})
sys.stdout.write(child.stdout)
sys.exit(child.returncode)
"""
JOB = """
import logging, sys
sys.path.insert(0, {root!r})
from prune_lib.cli import run_job
from prune_lib.settings import PruneSettings
def job(settings):
    logging.getLogger("prune_lib").info("read")
    return "kept"
sys.exit(run_job(PruneSettings, job, ["--ratio", "0.1", *{flags!r}]))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc: spark-submit's stderr is unknown")
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_log_lines_go_to_the_stderr_of_spark_submit(tmp_path: Path, flags: list[str]) -> None:
    job = JOB.format(root=str(HERE.parents[1]), flags=flags)
    command = [sys.executable, "-c", SUBMIT, "org.apache.spark.deploy.SparkSubmit", job]
    piped = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    expected = '{"job": "prune", "text": "kept"}\n' if flags else "kept\n"
    assert (piped.returncode, piped.stdout) == (0, expected), piped.stderr
    assert piped.stderr.endswith(" read\n")
    with open(tmp_path / "err", "w") as file:
        filed = subprocess.run(command, stdout=subprocess.PIPE, stderr=file, text=True, cwd=tmp_path)
    # Beside the JVM, a file is written to only where stdout must stay clean.
    assert filed.stdout.endswith(expected) and (filed.stdout == expected) == bool(flags)
    both = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    assert both.stdout.endswith(f" read\n{expected}")
