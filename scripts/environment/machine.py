"""What the machine must bring: a Python, a Java, room on the disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from environment.errors import MachineError

# petastorm's pins (pyarrow 14, numpy 1) have wheels for these versions only. The first is the one
# that the project is developed on.
PYTHON_MINORS = (11, 12, 10)
# Spark 3.5 runs on 8, 11 and 17; MLflow's and our own tests have seen the last two.
JAVA_VERSIONS = (17, 11)

# Measured: 6.1 GiB installed, 3 GiB of downloads beside it while pip works.
DISK_GIB = 10

_JAVA_HOMES = ("/usr/lib/jvm/*", "/Library/Java/JavaVirtualMachines/*/Contents/Home", "/opt/java/*")


class Interpreter(NamedTuple):
    """A Python that was found."""

    path: str
    version: tuple[int, int, int]
    makes_environments: bool

    @property
    def supported(self) -> bool:
        """Whether this project runs on it."""
        return self.version[0] == 3 and self.version[1] in PYTHON_MINORS


def probe_python(name: str) -> Interpreter | None:
    """Starts a Python to see what it is; None where it does not start."""
    path = shutil.which(name)
    if path is None:
        return None
    # Debian's Python has no ensurepip until python3-venv is installed: `python -m venv` then fails.
    code = (
        "import sys\ntry:\n import ensurepip, venv\n ok = 1\nexcept ImportError:\n ok = 0\n"
        "print(*sys.version_info[:3], ok)"
    )
    # A version manager's shim may be on PATH for a version that it does not have.
    done = subprocess.run([path, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if done.returncode != 0:
        return None
    major, minor, micro, ok = (int(part) for part in done.stdout.split())
    return Interpreter(path, (major, minor, micro), bool(ok))


def choose_python(
    names: Iterable[str], probe: Callable[[str], Interpreter | None] = probe_python
) -> Interpreter:
    """The first supported Python of those named.

    Raises:
        MachineError: None of them is supported, or none can make a virtual environment.
    """
    names = list(names)
    found = [interpreter for name in names if (interpreter := probe(name))]
    supported = [interpreter for interpreter in found if interpreter.supported]
    for interpreter in supported:
        if interpreter.makes_environments:
            return interpreter
    if supported:
        version = "{}.{}".format(*supported[0].version)
        raise MachineError(
            f"Python {version} ({supported[0].path}) cannot make virtual environments: its `venv` "
            f"or `ensurepip` module is missing. Install it (Debian and Ubuntu: `apt-get install "
            f"python{version}-venv`) and run `make setup` again."
        )
    seen = ", ".join(sorted({"{}.{}.{} ({})".format(*python.version, python.path) for python in found}))
    raise MachineError(
        f"Python 3.11 is needed (3.10 and 3.12 do as well); found {seen or 'none of ' + ', '.join(names)}. "
        "Install it (Debian and Ubuntu: `apt-get install python3.11 python3.11-venv`; macOS: `brew install "
        "python@3.11`), or name it: `make setup PYTHON=/path/to/python3.11`."
    )


def parse_java_version(text: str) -> int | None:
    """The major version in the output of `java -version`; None where there is none.

    >>> parse_java_version('openjdk version "17.0.15" 2025-04-15')
    17
    >>> parse_java_version('java version "1.8.0_392"')
    8
    """
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found.group(1)) if found else None


def java_command(environ: dict[str, str]) -> tuple[str | None, str]:
    """The Java that Spark will start, and the setting that decides which.

    Returns:
        The path (None where there is none) and either `JAVA_HOME` or `PATH`.
    """
    home = environ.get("JAVA_HOME")
    if home:
        path = Path(home) / "bin" / "java"
        return (str(path) if path.is_file() else None), "JAVA_HOME"
    return shutil.which("java", path=environ.get("PATH", "")), "PATH"


def java_version(path: str) -> int | None:
    """The major version of a Java; None where it does not run (as macOS's placeholder)."""
    try:
        done = subprocess.run([path, "-version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError:
        return None
    return parse_java_version(done.stdout) if done.returncode == 0 else None


def explain_java(
    path: str | None,
    version: int | None,
    decided_by: str,
    environ: dict[str, str],
    others: list[str],
) -> str:
    """What is wrong with the machine's Java; empty where nothing is.

    Args:
        path: The Java that Spark would start, if any.
        version: Its major version, if it runs.
        decided_by: `JAVA_HOME` or `PATH`.
        environ: The environment.
        others: Homes of suitable Javas elsewhere on the machine.
    """
    if version in JAVA_VERSIONS:
        return ""
    if path is None and decided_by == "JAVA_HOME":
        found = f"JAVA_HOME is {environ['JAVA_HOME']}, where there is no bin/java"
    elif path is None:
        found = "there is no `java` on PATH, and JAVA_HOME is not set"
    elif version is None:
        found = f"{path} (from {decided_by}) does not run"
    else:
        found = f"{path} (from {decided_by}) is Java {version}"
    if others:
        advice = f"A suitable one is installed: `export JAVA_HOME={others[0]}`"
    else:
        advice = (
            "Install it (Debian and Ubuntu: `apt-get install openjdk-17-jre-headless`; macOS: `brew install "
            "openjdk@17`) and, if it is not the first on PATH, set JAVA_HOME to its folder"
        )
    return f"Java 17 is needed by Spark (11 does as well); {found}. {advice}. Then run the command again."


def suitable_java_homes() -> list[str]:
    """Homes of suitable Javas in the usual places, in order of preference."""
    homes: dict[int, str] = {}
    for pattern in _JAVA_HOMES:
        for home in sorted(Path("/").glob(pattern[1:])):
            version = java_version(str(home / "bin" / "java"))
            if version in JAVA_VERSIONS:
                homes.setdefault(version, str(home))
    return [homes[version] for version in JAVA_VERSIONS if version in homes]


def check_java() -> int:
    """The major version of the Java that Spark will start.

    Raises:
        MachineError: There is none, or Spark does not run on it.
    """
    environ = dict(os.environ)
    path, decided_by = java_command(environ)
    version = java_version(path) if path else None
    if version in JAVA_VERSIONS:
        return version
    raise MachineError(explain_java(path, version, decided_by, environ, suitable_java_homes()))


def explain_disk(folder: Path, free_bytes: int, used_bytes: int = 0) -> str:
    """What is wrong with the room on the disk; empty where nothing is.

    Args:
        folder: Where the environment goes.
        free_bytes: Free space on its disk.
        used_bytes: What an earlier, unfinished set-up has already put there.
    """
    gib = 1024**3
    if free_bytes + used_bytes >= DISK_GIB * gib:
        return ""
    return (
        f"Not enough room on the disk: the environment in {folder} needs {DISK_GIB} GB (most of "
        f"it is torch with CUDA), and {free_bytes / gib:.1f} GB are free. Make room, or put it on "
        "another disk: `make setup VENV=/path/to/venv` (and the same VENV in later calls of make)."
    )


def folder_size(folder: Path) -> int:
    """The bytes of the files in a folder."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(folder) for name in names
    )


def check_disk(venv: Path) -> None:
    """Makes sure that the environment will fit.

    Raises:
        MachineError: It will not.
    """
    # The nearest folder that exists already is on the same disk.
    existing = next(folder for folder in (venv, *venv.parents) if folder.is_dir())
    problem = explain_disk(venv, shutil.disk_usage(existing).free, folder_size(venv))
    if problem:
        raise MachineError(problem)
