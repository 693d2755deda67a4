"""The command line: exit codes, one paragraph on stderr, nothing heavy before the work."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prune_lib.cli import prune_main, run_job
from prune_lib.errors import InputError, PruneError
from prune_lib.settings import PruneSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("PRUNE_", "EVALUATE_", "EXPLAIN_")):
            monkeypatch.delenv(name)
    ours = logging.getLogger("prune_lib")
    former = (ours.handlers, ours.level, ours.propagate)
    others = list(logging.getLogger().handlers)
    yield
    ours.handlers, ours.propagate = former[0], former[2]
    logging.getLogger().handlers = others
    ours.setLevel(former[1])


def run(job, tmp_path: Path, *more: str) -> int:
    return run_job(PruneSettings, job, ["--ratio", "0.1", "--workspace", str(tmp_path), *more])


def raises(error: BaseException):
    def job(settings: PruneSettings) -> object:
        raise error

    return job


def test_a_terminal_without_arrows_gets_the_rest(tmp_path, monkeypatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run(lambda settings: "a → b █▏ ü", tmp_path) == 0
    assert terminal.buffer.getvalue() == b"a -> b #| ?\n"


def test_the_summary_goes_to_stdout_and_the_log_to_stderr(tmp_path, capsys) -> None:
    def job(settings: PruneSettings) -> object:
        log = logging.getLogger("prune_lib.pipeline")
        log.info("read 10 rows")
        log.warning("few rows")
        log.debug("detail")
        return f"kept {settings.ratio:g}"

    assert run(job, tmp_path) == 0
    out, err = capsys.readouterr()
    assert out == "kept 0.1\n"
    lines = err.splitlines()
    assert [line[9:] for line in lines] == ["read 10 rows", "warning: few rows"]
    assert lines[0][2] == ":" and lines[0][8] == " "
    assert run(job, tmp_path, "--verbose") == 0
    assert "detail" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (PruneError, 1)])
def test_a_foreseen_error_is_one_paragraph(tmp_path, capsys, error, code) -> None:
    text = "the table /data/x has no column of sessions. " * 4
    assert run(raises(error(text)), tmp_path) == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    assert err.startswith("prune: error: the table /data/x")
    assert max(map(len, err.splitlines())) <= 100
    assert not (tmp_path / "logs").exists()


def test_an_unforeseen_error_leaves_its_trace_in_a_file(tmp_path, capsys) -> None:
    def job(settings: PruneSettings) -> object:
        logging.getLogger("prune_lib").info("read 10 rows")
        raise RuntimeError("all is lost\nat Frame.scala:1\nat Frame.scala:2")

    assert run(job, tmp_path) == 1
    err = capsys.readouterr().err
    assert "the run failed with RuntimeError: all is lost." in err
    assert "Frame.scala" not in err and "Traceback" not in err
    (file,) = (tmp_path / "logs").iterdir()
    assert str(file) in err.replace("\n", " ")
    text = file.read_text()
    assert "Traceback" in text and "Frame.scala:2" in text and "read 10 rows" in text
    settings = json.loads(text.splitlines()[0].removeprefix("settings: "))
    assert settings["ratio"] == 0.1


def test_verbose_shows_the_trace(tmp_path, capsys) -> None:
    assert run(raises(RuntimeError("lost")), tmp_path, "--verbose") == 1
    assert "Traceback" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_a_trace_without_a_writable_workspace(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert run(raises(RuntimeError("lost")), tmp_path / "file") == 1
    assert list(tmp_path.glob("prune-*.log"))


def test_known_causes_come_with_a_hint(tmp_path, capsys) -> None:
    run(raises(RuntimeError("java.lang.OutOfMemoryError: Java heap space")), tmp_path)
    assert "--driver-memory" in capsys.readouterr().err
    run(raises(OSError(28, "No space left on device")), tmp_path)
    assert "disk is full" in capsys.readouterr().err
    run(raises(RuntimeError("Python worker exited unexpectedly (crashed)")), tmp_path)
    assert "spark.executor.pyspark.memory" in capsys.readouterr().err


def test_a_missing_package_is_the_users_to_install(tmp_path, capsys) -> None:
    assert run(raises(ModuleNotFoundError("No module", name="torch.nn")), tmp_path) == 2
    assert "pip install 'prune-lib[experts]'" in " ".join(capsys.readouterr().err.split())
    assert run(raises(ModuleNotFoundError("No module", name="prune_lib.x")), tmp_path) == 1


def test_ctrl_c(tmp_path, capsys) -> None:
    assert run(raises(KeyboardInterrupt()), tmp_path) == 130
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and err.startswith("prune: interrupted")


def test_ctrl_c_that_became_another_failure(tmp_path, capsys) -> None:
    """As with Spark, whose handler of the signal fails where a call to the JVM is open."""

    def job(settings: PruneSettings) -> object:
        former = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, former)
        raise RuntimeError("An error occurred while calling o37.range")

    assert run(job, tmp_path) == 130
    assert capsys.readouterr().err.startswith("prune: interrupted")
    assert run(raises(RuntimeError("later")), tmp_path) == 1


def test_a_failure_in_a_worker_says_what_failed_there(tmp_path, capsys) -> None:
    class PythonException(Exception):
        pass

    text = (
        "\n  An exception was thrown from the Python worker. Please see the stack trace below.\n"
        'Traceback (most recent call last):\n  File "job.py", line 13, in f\n'
        "ValueError: no such item\n\n\nJVM stacktrace:\norg.apache.spark.SparkException\n"
    )
    assert run(raises(PythonException(text)), tmp_path) == 1
    assert "the run failed in a Python worker: ValueError: no such item." in capsys.readouterr().err


def test_a_pipe_that_breaks_inside_the_job_is_a_failure(tmp_path, capsys, monkeypatch) -> None:
    assert run(raises(BrokenPipeError(32, "Broken pipe")), tmp_path) == 1
    assert "BrokenPipeError" in capsys.readouterr().err

    def ended(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("prune_lib.cli.print_text", ended)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    assert run(lambda _: "kept", tmp_path) == 0, "`head` has seen enough"


def test_every_mistake_of_the_settings_ends_with_2(capsys) -> None:
    for argv in (["--ratio", "0"], ["--ratio", "1.5"], ["--ratio", "abc"], [], ["--ratoi", "1"]):
        with pytest.raises(SystemExit) as caught:
            prune_main(argv)
        assert caught.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith("prune: error: --rat") and "Traceback" not in err


def test_mistakes_in_a_list_keep_their_lines(capsys) -> None:
    with pytest.raises(SystemExit):
        prune_main(["--ratio", "2", "--method", "x"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "prune: error: 2 mistakes in the settings:"
    assert [line[:4] for line in lines if line.startswith("(")] == ["(1) ", "(2) "]


@pytest.mark.parametrize("argv", [["--help"], ["--ratio", "7"]])
@pytest.mark.parametrize("job", ["prune", "evaluate"])
def test_help_and_mistakes_load_nothing_heavy(job: str, argv: list[str], tmp_path: Path) -> None:
    """The job's file runs where the package is not installed, from any folder."""
    script = (
        "import runpy, sys, json\n"
        f"sys.argv = {[str(ROOT / 'jobs' / f'{job}.py'), *argv]!r}\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    code = end.code\n"
        "heavy = {'pyspark', 'torch', 'mlflow', 'petastorm', 'pandas'} & set(sys.modules)\n"
        "sys.stderr.write(json.dumps([code, sorted(heavy)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr.splitlines()[-1]) == [0 if argv == ["--help"] else 2, []]
