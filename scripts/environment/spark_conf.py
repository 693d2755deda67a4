"""Settings for the environment's own Spark, sized for this machine."""

from __future__ import annotations

import os
import string
from pathlib import Path

TEMPLATES = Path(__file__).parent / "spark-conf"
CONF_FILES = ("spark-defaults.conf", "log4j2.properties", "spark-env.sh")
LAUNCHERS = ("find-spark-home", "spark-submit", "spark-sql")

_GIB = 1024**3
# Below 2 GiB Spark's own needs leave no room for data. Above 8 GiB a local run gains nothing: it is
# the Python workers that hold what is large.
_MIN_GIB, _MAX_GIB = 2, 8
_DRIVER_SHARE = 0.45


def driver_memory(total_bytes: int) -> str:
    """The driver's memory on a machine with this much, in Spark's notation.

    >>> driver_memory(16 * 1024**3)
    '7g'
    """
    return f"{min(max(int(total_bytes * _DRIVER_SHARE / _GIB), _MIN_GIB), _MAX_GIB)}g"


def memory_limit(physical: int, limits: list[str]) -> int:
    """The memory that this machine or container may use, in bytes.

    Args:
        physical: The machine's memory.
        limits: What the control group's files say; `max`, nothing, or a huge number is no limit.
    """
    return min([physical, *(int(limit) for limit in limits if limit.strip().isdigit())])


def total_memory() -> int:
    """The memory of this machine or container, in bytes."""
    limits = []
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if os.path.isfile(name):
            limits.append(Path(name).read_text(encoding="ascii"))
    return memory_limit(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), limits)


def fill(template: str, values: dict[str, str]) -> str:
    """Fills a template's `${name}`s; the shell's own, which are not among `values`, stay."""
    return string.Template(template).safe_substitute(values)


def write_conf(venv: Path, spark_home: Path) -> None:
    """Writes the settings, and launchers that find this Spark without activation."""
    values = {
        "python": str(venv / "bin" / "python"),
        "driver_memory": driver_memory(total_memory()),
        "spark_home_from_bin": os.path.relpath(spark_home, venv / "bin"),
    }
    conf = spark_home / "conf"
    conf.mkdir(exist_ok=True)
    for name in CONF_FILES:
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        _replace(conf / name, fill(text, values))
    for name in LAUNCHERS:
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        _replace(venv / "bin" / name, fill(text, values))
        (venv / "bin" / name).chmod(0o755)


def _replace(path: Path, text: str) -> None:
    """Puts a new file in a file's place; installers may have linked the old one to their cache."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
