"""The virtual environment and what pip installs into it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from environment.commands import Runner
from environment.errors import MachineError, SetupError
from environment.machine import Interpreter, probe_python

# What builds the packages that come as source (pyspark does). They are installed first, from the
# lock file, and nothing else is: pip's own build isolation would fetch unpinned ones.
_BUILDERS = ("setuptools", "wheel")

_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProtocolError|ProxyError"
    r"|Name or service not known|Temporary failure in name resolution|Connection (?:refused|reset)"
    r"|Network is unreachable|Could not fetch URL|SSLError|ReadTimeout|IncompleteRead"
)


def lock_entries(lock: str, names: tuple[str, ...]) -> str:
    r"""The entries of some packages in a lock file, with their hashes.

    >>> print(lock_entries("a==1 \\\n    --hash=sha256:0\nb==2 \\\n    --hash=sha256:1", ("b",)))
    b==2 \
        --hash=sha256:1
    """
    entries = re.findall(r"^[^\s#].*\n(?:[ \t]+--hash.*\n?)*", lock, flags=re.MULTILINE)
    return "".join(entry for entry in entries if entry.split("==")[0].strip() in names)


def explain_pip(output: str, log: Path) -> str:
    """One paragraph for a failure of pip, from all that it printed."""
    again = f"Run `make setup` again when that is put right; it goes on from here. pip's log: {log}"
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return f"The disk is full: pip could not write the packages. Make room. {again}"
    if "DO NOT MATCH THE HASHES" in output:
        return (
            "A downloaded package is not the one that requirements/lock.txt pins, so it was not installed. A "
            f"proxy or mirror may have altered it, or a download broke off; try another network. {again}"
        )
    if _NETWORK.search(output):
        return (
            "The Python package index could not be reached, so the packages cannot be installed. Check the "
            f"network (behind a proxy set HTTPS_PROXY, for a mirror PIP_INDEX_URL). {again}"
        )
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        return (
            f"The Python package index has no file of {missing.group(1)} for this machine. Linux with glibc "
            "2.28 or newer (x86-64, ARM) and macOS 14 or newer on Apple silicon are supported, and a mirror "
            f"(PIP_INDEX_URL) must carry the versions of requirements/lock.txt. {again}"
        )
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "it said nothing")
    return f"pip could not install the packages: {last.strip()}. {again}"


def check_folder(venv: Path) -> None:
    """Refuses to make an environment where there is something else.

    Raises:
        MachineError: The folder holds files, and no environment.
    """
    if venv.exists() and not venv.is_dir():
        raise MachineError(f"VENV={venv} is a file; name a folder for the environment.")
    if venv.is_dir() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").is_file():
        raise MachineError(
            f"VENV={venv} holds files but no virtual environment; nothing was changed. Name an "
            "empty or new folder."
        )


def environment_python(venv: Path) -> Interpreter | None:
    """The environment's Python; None where there is none, or a broken or unfinished one."""
    found = probe_python(str(venv / "bin" / "python"))
    has_pip = any(venv.glob("lib/python*/site-packages/pip/__main__.py"))
    return found if found and found.supported and has_pip else None


def create_environment(base: Interpreter, venv: Path, run: Runner) -> Interpreter:
    """Makes the virtual environment, afresh where an unfinished one is in the way.

    Raises:
        SetupError: Python could not make it.
    """
    done = run([base.path, "-m", "venv", "--clear", str(venv)])
    python = environment_python(venv)
    if done.returncode != 0 or python is None:
        raise SetupError(
            f"Python could not make a virtual environment in {venv}: "
            f"{(done.stdout.strip().splitlines() or ['it said nothing'])[-1]}"
        )
    return python


def install(python: str, venv: Path, lock: Path, run: Runner) -> None:
    """Installs what the lock file pins.

    Raises:
        SetupError: pip failed.
    """
    # On the environment's own disk: /tmp is often in memory, and 3 GB of downloads are not small.
    scratch = venv / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    builders = scratch / "builders.txt"
    builders.write_text(lock_entries(lock.read_text(encoding="utf-8"), _BUILDERS), encoding="utf-8")
    try:
        # The lock file is complete, so dependencies need no resolving.
        for requirements in (builders, lock):
            _pip(
                [python, "-m", "pip", "install", "--no-deps", "--require-hashes"]
                # Python compiles a module when it is first imported; compiling all 19,000 of them at once
                # is a third of the whole set-up, and most are never imported.
                + ["--no-build-isolation", "--no-compile", "--requirement", str(requirements)],
                run,
                scratch,
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def install_project(python: str, root: Path, run: Runner) -> None:
    """Installs this project as it is edited, without the network.

    Raises:
        SetupError: pip failed.
    """
    _pip(
        [python, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation"]
        + ["--editable", str(root)],
        run,
    )


def _pip(command: list[str], run: Runner, scratch: Path | None = None) -> None:
    """Runs pip, and explains it where it fails."""
    command = [*command, "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    env = dict(os.environ, **({"TMPDIR": str(scratch)} if scratch else {}))
    # pip refuses to install into an environment where the user's PYTHONPATH shows other packages.
    env.pop("PYTHONPATH", None)
    done = run(command, env=env)
    if done.returncode != 0:
        raise SetupError(explain_pip(done.stdout, run.log))
