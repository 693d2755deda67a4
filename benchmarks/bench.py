"""Every figure of docs/performance.md, in one go on one machine.

    make bench                                      # all parts but `large`, some four hours
    make bench ARGS="--parts peers,scaling"         # some; the others' figures stay as they are

Runs the parts one after the other, each measurement a program of its own, and writes what they measured to
`benchmarks/results.json` and `docs/performance.md`, part by part. What is compared takes turns: every way
once, then every way again, so that a machine that slows down slows down all. A part that fails is told of,
the next one goes on, and the exit code is 1.

* `peers`: our Spark job, the same without Spark, and what others would do, on the same sessions;
* `stages`: where the time of the Spark job goes;
* `job`: the job that users run, `jobs/prune.py`, with its experts and all its tables;
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
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
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
# Another's way that takes longer is timed once.
_LONG = 60.0
_DIGINETICA = 186_670
_SIZES = (10_000, 50_000, _DIGINETICA, 1_000_000)
# No part of the environment. apricot is unmaintained since 2021; its requirements are there already.
_APRICOT, _PY_SPY = "apricot-select==0.6.1", "py-spy==0.4.1"

Row = dict[str, Any]


class Bench:
    """What the parts share: inputs, programs, and a line about each measurement."""

    def __init__(self, folder: Path, data: Path, turns: int = 3) -> None:
        self.folder, self.data, self.turns = folder, data, turns
        self._bin = Path(sys.executable).parent

    def sessions(self, n: int, **how: Any) -> Path:
        """An input of so many sessions; of diginetica's number, diginetica where it is there."""
        if n == _DIGINETICA and not how and (self.data / "diginetica").is_dir():
            return inputs.diginetica(self.folder, self.data)
        return inputs.generated(self.folder, n, **how)

    def ours(self, place: Path, *flags: str, cores: int = 2) -> Ended:
        """The Spark job's stages on so many cores."""
        submit = [*self._submit(cores), str(ROOT / "benchmarks" / "scale.py")]
        given = [*submit, "--input", str(place), "--json", *flags]
        return self._said(f"Spark, {place.stem} {' '.join(flags)}".strip(), self._limited(given, cores=cores))

    def job(self, place: Path, workspace: Path) -> Ended:
        """The job as users run it; in a workspace that has experts and scores they are taken from there."""
        given = [*self._submit(), str(ROOT / "jobs" / "prune.py"), "--json", "--ratio", "0.1"]
        given += ["--input", str(place), "--order-column", "ordering", "--workspace", str(workspace)]
        return self._said(f"jobs/prune.py, {place.stem}", self._limited(given))

    def peer(self, name: str, place: Path) -> Ended:
        """Another's way, or ours in one process."""
        program = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), name, str(place)]
        extra = {"PYTHONPATH": str(self._beside(_APRICOT))} if name.startswith("apricot") else {}
        seconds = _OURS if name == "one-process" else SECONDS
        return self._said(f"{name}, {place.stem}", self._limited(program, seconds=seconds, environment=extra))

    def training(self, name: str, place: Path, *flags: str) -> Ended:
        """Time to a given quality."""
        given = [*self._submit(), str(ROOT / "benchmarks" / "training.py"), "--json", "--input", str(place)]
        return self._said(f"training, {name}", self._limited([*given, *flags]))

    def _submit(self, cores: int = 2) -> list[str]:
        return [str(self._bin / "spark-submit"), "--master", f"local[{cores}]"]

    def _limited(
        self,
        program: Sequence[str],
        *,
        cores: int = 2,
        seconds: float = _OURS,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run on so many cores, to which compilers and libraries are held, too: all ways alike."""
        held = ["taskset", "--cpu-list", f"0-{cores - 1}"] if shutil.which("taskset") else []
        return limited([*held, *program], seconds=seconds, gib=MEMORY, environment=environment)

    def flame(self, place: Path) -> dict[str, float]:
        """Seconds by function of the Python workers, and `docs/flame.svg`.

        Raises:
            RuntimeError: py-spy is not to be had, or the program did not end.
        """
        if not self.fetched(_PY_SPY):
            raise RuntimeError(f"{_PY_SPY} could not be installed")
        scale = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), "--master", "local[2]"]
        given = ["--input", str(place), "--suspects", "--passes", "2", "--json"]
        drawn = self.folder / "flame.svg"
        program = flame.command(self._beside(_PY_SPY) / "bin" / "py-spy", drawn, [*scale, *given])
        ended = self._said(f"flame graph, {place.stem}", self._limited(program))
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
        if target.is_dir():
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:  # a broken install is none
            whole = Path(scratch) / "whole"
            fetch = [str(self._bin / "uv"), "pip", "install", "--quiet", "--no-deps", "--target", str(whole)]
            if subprocess.run([*fetch, package], check=False).returncode == 0:
                whole.rename(target)
        return target.is_dir()

    def _beside(self, package: str) -> Path:
        return self.folder / package.partition("=")[0]

    def _said(self, what: str, ended: Ended) -> Ended:
        result = ended.result or {}
        took = (result["passes"][0] if "passes" in result else result).get("seconds")
        said = ended.stopped or ("" if took is None else f"{took:.2f} s")
        print(f"{what}: {said} ({ended.seconds:.0f} s in all, {ended.peak:.1f} GiB)", flush=True)
        return ended


def in_turn(ways: Mapping[str, Callable[[], Ended]], turns: int) -> dict[str, list[Row]]:
    """Each way's runs, one after the other in each turn; one that was stopped is not run again.

    Args:
        ways: by name; of others than ours and ours in one process a long one is run once.
        turns: how often.
    """
    runs: dict[str, list[Row]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            last = runs[name][-1] if runs[name] else None
            if last is None or not (last["stopped"] or (name in PEERS and last["wall"] > _LONG)):
                runs[name].append(_row(way()))
    return runs


def peers(bench: Bench) -> list[Row]:
    """A row for each size and way."""
    rows: list[Row] = []
    out: dict[str, str] = {}
    if not bench.fetched(_APRICOT):
        out |= {name: f"{_APRICOT} could not be installed" for name in PEERS if name.startswith("apricot")}
    for n in _SIZES:
        place = bench.sessions(n)
        ways: dict[str, Callable[[], Ended]] = {"spark": partial(bench.ours, place, "--passes", "2")}
        if n >= _DIGINETICA:
            ways["spark, arrays"] = partial(bench.ours, place, "--engine", "arrays", "--passes", "2")
        for name in ("one-process", *PEERS):
            if name not in out:
                ways[name] = partial(bench.peer, name, place)
        runs = in_turn(ways, bench.turns)
        common = {"n": n, "input": place.stem}
        rows += [{"way": name, **common, "runs": own} for name, own in runs.items()]
        rows += [{"way": name, **common, "runs": [], "skipped": why} for name, why in out.items()]
        for name in PEERS:
            if name in runs and runs[name][-1]["stopped"]:
                out[name] = f"not asked: stopped at {n:,}"
    return rows


def stages(bench: Bench) -> list[Row]:
    """A row for each size, with suspects as a run has them."""
    sizes = (_DIGINETICA, 1_000_000)
    places = {n: bench.sessions(n) for n in (*sizes, 4_000_000)}
    few: dict[str, Callable[[], Ended]] = {
        str(n): partial(bench.ours, places[n], "--suspects", "--passes", "2") for n in sizes
    }
    runs = in_turn(few, bench.turns)
    runs |= in_turn({"4000000": partial(bench.ours, places[4_000_000], "--suspects")}, 1)
    return [{"n": n, "input": place.stem, "runs": runs[str(n)]} for n, place in places.items()]


def job(bench: Bench) -> list[Row]:
    """A row for each size: a first run, which trains experts and scores, and some that find both done."""
    rows = []
    for n in (_DIGINETICA, 1_000_000):
        place = bench.sessions(n)
        with tempfile.TemporaryDirectory(dir=bench.folder) as workspace:
            where = Path(workspace)
            first = _row(bench.job(place, where))
            again = in_turn({"": partial(bench.job, place, where)}, bench.turns)[""]
        for run in (first, *again):
            run["result"] = run["result"] and _of_job(run["result"]["run"])
        rows.append({"n": n, "input": place.stem, "first": first, "runs": again})
    return rows


def _of_job(run: Row) -> Row:
    """Of a run's record: sizes, and seconds by stage."""
    sizes = ("sessions_before", "interactions_before", "sessions_after")
    seconds = {one["name"]: one["seconds"] for one in run["stages"]}
    return {"stages": seconds, **{name: run[name] for name in sizes}}


def flames(bench: Bench) -> list[Row]:
    """A row for each function of ours that Spark's Python workers spend time for, most first."""
    found = bench.flame(bench.sessions(_DIGINETICA))
    return [{"function": name, "seconds": seconds} for name, seconds in found.items()]


# What stays the same while one thing changes: enough to be more than Spark's fixed cost.
_BASE = 500_000


def scaling(bench: Bench) -> list[Row]:
    """A row for each value of each thing that changes, one at a time."""
    base = bench.sessions(_BASE)
    asked: list[tuple[str, float, Path, tuple[str, ...], int]] = [
        ("sessions", n, bench.sessions(n), (), 2) for n in (200_000, _BASE, 1_000_000, 2_000_000, 4_000_000)
    ]
    asked.append(("cores", 1, base, (), 1))
    hubs = [(hub, bench.sessions(_BASE, hub=hub)) for hub in (0.1, 0.3, 0.5)]
    asked += [("share of the most popular item", hub, place, (), 2) for hub, place in hubs]
    asked += [("ratio", ratio, base, ("--ratio", f"{ratio:g}"), 2) for ratio in (0.05, 0.3, 0.5)]
    asked += [("times the length", n, bench.sessions(_BASE, joined=n), (), 2) for n in (2, 4)]
    ways: dict[str, Callable[[], Ended]] = {
        f"{what} {value}": partial(bench.ours, place, *flags, cores=cores)
        for what, value, place, flags, cores in asked
    }
    runs = in_turn(ways, bench.turns)
    return [
        {"what": what, "value": value, "input": place.stem, "runs": runs[f"{what} {value}"]}
        for what, value, place, _, _ in asked
    ]


def large(bench: Bench) -> list[Row]:
    """A row for each of two sizes, of which the second does not fit into memory.

    Raises:
        RuntimeError: one did not end.
    """
    rows = []
    for n in (4_000_000, 20_000_000):
        place = bench.sessions(n)
        # The same way for both, so that a line can be drawn: what `auto` takes for that many.
        ended = bench.ours(place, "--suspects", "--engine", "arrays")
        if ended.result is None:
            raise RuntimeError(f"benchmarks/scale.py, {n:,} sessions: {ended.stopped}")
        rows.append({"n": n, "input": place.stem, "runs": [_row(ended)]})
    return rows


def training(bench: Bench) -> list[Row]:
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
    rows: list[Row] = []
    for name, (place, flags) in given.items():
        ended = bench.training(name, place, *flags)
        if ended.result is None:
            raise RuntimeError(f"benchmarks/training.py: {ended.stopped}")
        rows += [{"data": name, **row} for row in ended.result["rows"]]
    return rows


def _row(ended: Ended) -> Row:
    return {
        "result": ended.result,
        "stopped": ended.stopped,
        "at": ended.at,
        "wall": ended.seconds,
        "peak": ended.peak,
    }


def machine() -> Row:
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
    "job": job,
    "flame": flames,
    "scaling": scaling,
    "training": training,
    "large": large,
}
#: What runs where no part is named.
USUAL = [name for name in PARTS if name != "large"]


def main(given: Sequence[str] | None = None) -> int:
    """Run the parts, and write what they measured; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default=",".join(USUAL), help="which, by commas")
    parser.add_argument("--turns", type=int, default=3, help="how often each figure is measured")
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
    found: Row = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if asked.page:
        PAGE.write_text(page(found), encoding="utf-8")
        return 0
    bench = Bench(asked.folder.resolve(), asked.data, asked.turns)
    # Once before all: the first run of an installation alone pays for what numba compiles.
    bench.ours(bench.sessions(10_000))
    failed = []
    for part in wanted:
        try:
            rows = PARTS[part](bench)
        except Exception:
            traceback.print_exc()
            failed.append(part)
            continue
        when = f"{datetime.now(timezone.utc):%Y-%m-%d}"
        found[part] = {"when": when, "machine": machine(), "rows": rows}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(found), encoding="utf-8")
    if failed:
        print(f"not measured, as they failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
