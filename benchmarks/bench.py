"""Every figure of docs/performance.md, in one go on one machine.

    make bench                                      # all parts but `large`, two hours
    make bench ARGS="--parts peers,scaling"         # some; the others' figures stay as they are

Runs the parts one after the other, each measurement a program of its own, and writes what they measured to
`benchmarks/results.json` and `docs/performance.md`.

* `peers`: our Spark job, the same without Spark, and what others would do, on the same sessions;
* `stages`: where the time of the Spark job goes;
* `flame`: where that of its Python goes, with a flame graph in `docs/flame.svg`;
* `scaling`: against size, cores, the share of the most popular item, ratio and length;
* `training`: time to a given Recall@20 on pruned data and on all of it;
* `large`: twenty million sessions, and what a billion clicks would take by that; only where it is named.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import flame, inputs  # noqa: E402
from benchmarks.meter import GIB, Ended, limited  # noqa: E402
from benchmarks.page import page  # noqa: E402
from benchmarks.peers import PEERS  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
GRAPH = ROOT / "docs" / "flame.svg"
#: Where a peer is stopped.
SECONDS, MEMORY = 600.0, 20.0
# Long enough for the largest of our own.
_OURS = 7200.0
_DIGINETICA = 186_670
_SIZES = (10_000, 50_000, _DIGINETICA, 1_000_000)
# No part of the environment. apricot is unmaintained since 2021; its requirements are there already.
_APRICOT, _PY_SPY = "apricot-select==0.6.1", "py-spy==0.4.1"


class Bench:
    """What the parts share: inputs, programs, and a line about each measurement."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self._bin = Path(sys.executable).parent

    def sessions(self, n: int, **how: Any) -> Path:
        """An input of so many sessions; of diginetica's number, diginetica where it is there."""
        if n == _DIGINETICA and not how and (self.data / "diginetica").is_dir():
            return inputs.diginetica(self.folder, self.data)
        return inputs.generated(self.folder, n, **how)

    def ours(self, place: Path, *flags: str, cores: int = 2) -> Ended:
        """The Spark job's stages on so many cores, to which its compiler and its Python are held, too."""
        held = ["taskset", "--cpu-list", f"0-{cores - 1}"] if shutil.which("taskset") else []
        spark = [str(self._bin / "spark-submit"), "--master", f"local[{cores}]"]
        submit = [*held, *spark, str(ROOT / "benchmarks" / "scale.py")]
        return self._said(
            f"Spark, {place.stem} {' '.join(flags)}".strip(),
            limited([*submit, "--input", str(place), "--json", *flags], seconds=_OURS, gib=MEMORY),
        )

    def peer(self, name: str, place: Path, *flags: str) -> Ended:
        """Another's way, or ours in one process."""
        program = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), name, str(place), *flags]
        extra = {"PYTHONPATH": str(self._beside(_APRICOT))} if name.startswith("apricot") else {}
        return self._said(
            f"{name}, {place.stem}", limited(program, seconds=SECONDS, gib=MEMORY, environment=extra)
        )

    def training(self, name: str, place: Path, *flags: str) -> Ended:
        """Time to a given quality."""
        program = [str(self._bin / "spark-submit"), str(ROOT / "benchmarks" / "training.py"), "--json"]
        given = [*program, "--input", str(place), *flags]
        return self._said(f"training, {name}", limited(given, seconds=_OURS, gib=MEMORY))

    def flame(self, place: Path) -> dict[str, float]:
        """Seconds by function of the Python workers, and `docs/flame.svg`.

        Raises:
            RuntimeError: py-spy is not to be had, or the program did not end.
        """
        if not self.fetched(_PY_SPY):
            raise RuntimeError(f"{_PY_SPY} could not be installed")
        scale = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), "--master", "local[2]"]
        given = ["--input", str(place), "--floor", "1", "--passes", "2", "--json"]
        drawn = self.folder / "flame.svg"
        program = flame.command(self._beside(_PY_SPY) / "bin" / "py-spy", drawn, [*scale, *given])
        ended = self._said(f"flame graph, {place.stem}", limited(program, seconds=_OURS, gib=MEMORY))
        if ended.stopped:
            raise RuntimeError(f"py-spy: {ended.stopped}")
        # Where the project and its inputs lie here is nobody's business.
        text = drawn.read_text(encoding="utf-8")
        for path in (ROOT, self.folder, Path(sys.prefix)):
            text = text.replace(str(path), path.name)
        GRAPH.write_text(flame.without_slivers(text), encoding="utf-8")
        return flame.seconds_by_function(flame.frames(drawn))

    def fetched(self, package: str) -> bool:
        """Install a package beside the environment; whether it is there."""
        target = self._beside(package)
        if not target.is_dir():
            fetch = [str(self._bin / "uv"), "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
            subprocess.run([*fetch, package], check=False)
        return target.is_dir()

    def _beside(self, package: str) -> Path:
        return self.folder / package.partition("=")[0]

    def _said(self, what: str, ended: Ended) -> Ended:
        result = ended.result or {}
        took = result.get("first", result).get("seconds")
        said = ended.stopped or ("" if took is None else f"{took:.2f} s")
        print(f"{what}: {said} ({ended.seconds:.0f} s in all, {ended.peak:.1f} GiB)", flush=True)
        return ended


def peers(bench: Bench) -> list[dict[str, Any]]:
    """A row for each size and way."""
    rows: list[dict[str, Any]] = []
    out: dict[str, int] = {}
    names = list(PEERS)
    if not bench.fetched(_APRICOT):
        names = [name for name in names if not name.startswith("apricot")]
    for n in _SIZES:
        place = bench.sessions(n)
        few = n < 1_000_000
        spark = bench.ours(place, "--passes", "3" if few else "2")
        rows.append({"way": "spark", "n": n, "input": place.stem, **_row(spark)})
        arrays = bench.ours(place, "--engine", "arrays", "--passes", "3" if few else "2")
        rows.append({"way": "spark, arrays", "n": n, "input": place.stem, **_row(arrays)})
        own = bench.peer("one-process", place, "--passes", "3")
        rows.append({"way": "one-process", "n": n, "input": place.stem, **_row(own)})
        for name in names:
            if name in out:
                rows.append({"way": name, "n": n, "input": place.stem, "skipped": out[name]})
                continue
            ended = bench.peer(name, place)
            rows.append({"way": name, "n": n, "input": place.stem, **_row(ended)})
            if ended.stopped:
                out[name] = n
    return rows


def stages(bench: Bench) -> list[dict[str, Any]]:
    """A row for each size, with floors and suspects as a run has them."""
    rows = []
    for n in (_DIGINETICA, 1_000_000, 4_000_000):
        place = bench.sessions(n)
        passes = "3" if n == _DIGINETICA else "1"
        ended = bench.ours(place, "--floor", "1", "--passes", passes)
        rows.append({"n": n, "input": place.stem, **_row(ended)})
    return rows


def flames(bench: Bench) -> list[dict[str, Any]]:
    """A row for each function of ours that Spark's Python workers spend time for, most first."""
    found = bench.flame(bench.sessions(_DIGINETICA))
    return [{"function": name, "seconds": seconds} for name, seconds in found.items()]


# What stays the same while one thing changes: enough to be more than Spark's fixed cost.
_BASE = 500_000


def scaling(bench: Bench) -> list[dict[str, Any]]:
    """A row for each value of each thing that changes, one at a time."""
    rows: list[dict[str, Any]] = []

    def add(what: str, value: float, place: Path, *flags: str, cores: int = 2) -> None:
        ended = bench.ours(place, *flags, cores=cores)
        rows.append({"what": what, "value": value, "input": place.stem, **_row(ended)})

    for n in (200_000, _BASE, 1_000_000, 2_000_000, 4_000_000):
        add("sessions", n, bench.sessions(n))
    base = bench.sessions(_BASE)
    add("cores", 1, base, cores=1)
    add("cores", 2, base, cores=2)
    for hub in (0.1, 0.3, 0.5):
        add("share of the most popular item", hub, bench.sessions(_BASE, hub=hub))
    for ratio in (0.05, 0.3, 0.5):
        add("ratio", ratio, base, "--ratio", f"{ratio:g}")
    for joined in (2, 4):
        add("times the length", joined, bench.sessions(_BASE, joined=joined))
    return rows


def large(bench: Bench) -> list[dict[str, Any]]:
    """A row for each of two sizes, of which the second does not fit into memory.

    Raises:
        RuntimeError: one did not end.
    """
    rows = []
    for n in (4_000_000, 20_000_000):
        place = bench.sessions(n)
        # The same way for both, so that a line can be drawn: what `auto` takes for that many.
        ended = bench.ours(place, "--floor", "1", "--engine", "arrays")
        if ended.result is None:
            raise RuntimeError(f"benchmarks/scale.py, {n:,} sessions: {ended.stopped}")
        rows.append({"n": n, "input": place.stem, **_row(ended)})
    return rows


def training(bench: Bench) -> list[dict[str, Any]]:
    """A row for each training: on yoochoose and diginetica where they are there, else on generated sessions.

    Raises:
        RuntimeError: it did not end.
    """
    clicks = bench.data / "yoochoose100k" / "events.parquet"
    given: dict[str, tuple[Path, tuple[str, ...]]] = {}
    if clicks.exists():
        given["yoochoose"] = (clicks, ())
    place = bench.sessions(_DIGINETICA if (bench.data / "diginetica").is_dir() else 20_000)
    given[place.stem] = (place, ("--order-column", "ordering"))
    rows: list[dict[str, Any]] = []
    for name, (place, flags) in given.items():
        ended = bench.training(name, place, *flags)
        if ended.result is None:
            raise RuntimeError(f"benchmarks/training.py: {ended.stopped}")
        rows += [{"data": name, **row} for row in ended.result["rows"]]
    return rows


def _row(ended: Ended) -> dict[str, Any]:
    return {
        "result": ended.result,
        "stopped": ended.stopped,
        "at": ended.at,
        "wall": ended.seconds,
        "peak": ended.peak,
    }


def machine() -> dict[str, Any]:
    """What it ran on, and with which versions."""
    cpu = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    names = ("pyspark", "delta-spark", "graphframes-py", "numpy", "scipy", "numba", "pyarrow")
    return {
        "cpu": cpu or platform.processor(),
        "cores": psutil.cpu_count(),
        "GiB": round(psutil.virtual_memory().total / GIB),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


PARTS: dict[str, Callable[[Bench], Any]] = {
    "peers": peers,
    "stages": stages,
    "flame": flames,
    "scaling": scaling,
    "training": training,
    "large": large,
}
#: What runs where no part is named.
USUAL = [name for name in PARTS if name != "large"]


def main(given: Sequence[str] | None = None) -> None:
    """Run the parts, and write what they measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default=",".join(USUAL), help="which, by commas")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "workspace" / "bench", help="inputs and scratch"
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="shared data sets")
    parser.add_argument(
        "--page", action="store_true", help="only write the page from the results that are there"
    )
    asked = parser.parse_args(given)
    wanted = [part for part in asked.parts.split(",") if part]
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        parser.error(f"--parts {','.join(unknown)}: there are {', '.join(PARTS)}")
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if not asked.page:
        bench = Bench(asked.folder.resolve(), asked.data)
        # Once before all: the first run of an installation alone pays for what numba compiles.
        bench.ours(bench.sessions(10_000))
        for part in wanted:
            rows = PARTS[part](bench)
            when = f"{datetime.now(timezone.utc):%Y-%m-%d}"
            found[part] = {"when": when, "machine": machine(), "rows": rows}
            RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
