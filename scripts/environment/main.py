"""The steps of the set-up, in order."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from environment import jars, machine, packages, spark_conf
from environment.commands import Runner, say
from environment.errors import SetupError
from environment.state import State, key

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "lock.txt"
HERE = Path(__file__).parent


def main() -> int:
    """Sets up the environment; shows a failure as one paragraph.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description="Sets up the virtual environment.")
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="its folder")
    parser.add_argument("--python", default="", help="the Python to make it with (default: found)")
    arguments = parser.parse_args()
    # Not resolve(): the environment keeps the name that the user gave it.
    venv = Path(os.path.abspath(arguments.venv))
    try:
        set_up(venv, arguments.python)
    except SetupError as error:
        print(f"\nset-up stopped: {error}\n", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nset-up interrupted; `make setup` goes on from here", file=sys.stderr)
        return 130
    return 0


def set_up(venv: Path, python_name: str) -> None:
    """Runs the steps that are not done.

    Raises:
        SetupError: One of them failed; those before it stay done.
    """
    java = machine.check_java()
    packages.check_folder(venv)
    state = State(venv / "setup-state.json")
    run = Runner(venv / "setup.log")
    started = time.monotonic()
    if not (venv / "bin" / "python").exists() or not state.is_done("python", str(venv)):
        if make_environment(venv, python_name, run):
            state.clear()  # it was made afresh: what was installed into the former one is gone
        state.note("python", str(venv))
    site = next(venv.glob("lib/python3.*/site-packages"))
    python, spark_home = venv / "bin" / "python", site / "pyspark"

    def step(name: str, text: str, step_key: str, action: Callable[[], None]) -> str:
        if not state.is_done(name, step_key):
            say(text)
            state.forget(name)
            action()
            state.note(name, step_key)
        return step_key

    installed = step(
        "packages",
        f"installing the packages of requirements/lock.txt (3 GB, minutes; log: {run.log})",
        key(LOCK, str(site)),
        lambda: install_packages(venv, run),
    )
    step(
        "project",
        "installing this project, as it is edited",
        key(ROOT / "setup.py", ROOT / "pyproject.toml", str(ROOT), installed),
        lambda: packages.install_project(str(python), ROOT, run),
    )
    fetched = step(
        "jars",
        "fetching the jars of Delta and GraphFrames",
        key(HERE / "jars.py", installed),
        lambda: jars.fetch_jars(spark_home, python, run, say),
    )
    templates = sorted(spark_conf.TEMPLATES.iterdir())
    written = step(
        "conf",
        f"writing Spark's settings to {spark_home / 'conf'}",
        key(HERE / "spark_conf.py", *templates, str(spark_conf.total_memory()), installed),
        lambda: spark_conf.write_conf(venv, spark_home),
    )
    check = ROOT / "scripts" / "check_env.py"
    step(
        "check",
        "trying Spark, Delta and GraphFrames together",
        key(check, fetched, written, str(java)),
        lambda: try_out(venv, check, run),
    )
    say(f"{venv} is ready ({time.monotonic() - started:.0f} s)")


def make_environment(venv: Path, python_name: str, run: Runner) -> bool:
    """Makes the virtual environment, unless there is a good one; whether it did."""
    if packages.environment_python(venv):
        return False
    machine.check_disk(venv)
    names = [f"python3.{minor}" for minor in machine.PYTHON_MINORS]
    base = machine.choose_python([python_name] if python_name else [*names, "python3"])
    say("making {} with Python {}.{}.{} ({})".format(venv, *base.version, base.path))
    venv.mkdir(parents=True, exist_ok=True)
    packages.create_environment(base, venv, run)
    return True


def install_packages(venv: Path, run: Runner) -> None:
    """Installs the pinned packages, where they fit."""
    machine.check_disk(venv)
    packages.install(str(venv / "bin" / "python"), venv, LOCK, run)


def try_out(venv: Path, check: Path, run: Runner) -> None:
    """Runs the check through spark-submit, as a user would.

    Raises:
        SetupError: It failed.
    """
    # For half a minute of work, the JVM's second compiler costs more than it saves.
    options = ["--driver-java-options", "-XX:TieredStopAtLevel=1"]
    done = run([str(venv / "bin" / "spark-submit"), *options, str(check)])
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
        raise SetupError(
            f"Spark, Delta and GraphFrames do not work together here: {last} (log: {run.log}). Try "
            f"it by hand: {venv}/bin/spark-submit {check}"
        )
    say(next(line for line in done.stdout.splitlines() if line.startswith("works: ")))
