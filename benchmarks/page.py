"""docs/performance.md, from what `bench.py` measured."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.forecast import CLUSTER, clicks_at, forecast
from prune_lib.settings import SamplingSettings

Row = dict[str, Any]

# Of Recall@20, as shares of the best that all the data reach.
_LEVELS = (0.8, 0.9, 0.95, 1.0)
_STAGES = ("read", "encode", "build", "propagate", "sample", "write")
_WAYS = {
    "spark": "Spark job",
    "spark, arrays": "Spark job, `--propagation-engine arrays`",
    "one-process": "ours in one process",
    "d2": "D2",
    "ccs": "CCS",
    "apricot-features": "apricot, features",
    "apricot-facility": "apricot, facility location",
}

_HEAD = """# How fast it is, and against what

The figures of a part are of one run of `make bench` on one machine, and are there to be compared with each
other; another machine has others. A figure is the median of its runs, with the least and the most in
brackets where there are several: programs of their own that took turns. Ratios are of medians.
`benchmarks/results.json` has every run. Regenerate:

```
make bench                                  # some four hours; ARGS="--parts peers,scaling" for some
```
"""

_PEERS = """## Beside what others would do

A tenth of the clicks is kept; difficulty is the same made-up number everywhere, so that no expert is in any
time. All have the same two cores.

- *Spark job*: read, encode, graph, propagation, sampling, a Delta table of the kept rows; Spark's start and
  that of the Python workers excluded. *First* is the first pass of a session, which is what `spark-submit`
  pays; *second* is the same once more in the same session, in which Spark has compiled what it needs.
- *ours in one process* (`benchmarks/one_process.py`): the same method, from Parquet to Parquet, in numpy,
  scipy and numba, one thread but where a library takes more: the honest alternative for whoever has one
  machine. The tests hold both to the same picks from the same scores.
- The others are given sessions, graph and difficulty for nothing, and are timed over their own work, for the
  same number of clicks. D2 and CCS are written here, by their formulas (`benchmarks/peers.py`); D2 has the
  exact graph of nearest neighbours, row by row in numpy, and a heap for its messages. apricot is its authors'
  package; it knows prices of sessions, but no weights of patterns. Each may take 10 minutes and 20 GiB; who
  could not finish is not asked for more sessions, and who takes longer than a minute is timed once.

*Objective* is what the kept set covers, as a share of ours in one process: the greedy's own aim, so that
the others cannot be expected to reach it; it says how far they are from what ours is for. D2 and CCS have
other aims.
"""

_BESIDE = """## Each stage beside its arithmetic

Of the same runs: what a stage takes ours in one process, which is its arithmetic and its files and little
else, on one core; and on Spark with two. *Busy* is what Spark's tasks took together in the second pass, in
seconds of a core; what of its time is not in them is planning, commits and waiting.
"""

_WHY = """
The aim was at most 3 times ours in one process at 186,670 sessions and no more than it at a million, with
each stage within twice its arithmetic. Whoever has sessions that fit into one machine's memory, and no need
of Delta, of clusters or of reasons, is better served by one process. What stands between, by profiles of
these runs (Spark's event log; py-spy, below):

- *Compiling.* The second pass does what the first one does, with the same data, after the JVM has compiled
  Spark's queries. `spark-submit` never sees that pass; a notebook and a long-lived cluster do.
- *Many small jobs.* A pass is a chain of small Spark jobs. Planning and starting one takes its time whatever
  it holds: that is nearly all of the time at 10,000 sessions.
- *Edges as rows.* GraphFrames' `aggregateMessages` sees each edge as a row, joins it with the vertices three
  times and groups it, twice a round; the arithmetic is a sparse product, a tenth of a second for millions of
  edges. `--propagation-engine arrays` does it so, bit for bit the same, and is what to use for speed.
- *In and out of Python.* Patterns, sequences and picks are found by the same numpy and numba code on both
  sides; Spark adds what it takes to bring rows to Python and back, and a shuffle: that is most of *encode*,
  *build* and *sample*.
- *One after the other.* Greedy picks in sequence: what one task can hold is picked by one task, which waits
  for all of its edges; the other core waits for it.
- *Delta.* *read* lists a table's files and looks at its ids; *write* joins the picks with the input's rows,
  and is a commit with its checks and its snapshot, a second or so. One process reads a file and writes one.
"""

_STAGES_TEXT = """## Where the time goes

`benchmarks/scale.py --suspects`: the graph's stages, with suspects set aside, as a run has them. Bytes are
those that Spark's shuffles wrote; memory is that of all processes together, shared pages counted once, at its
largest within the stage; both of the first run's first pass.
"""

_JOB = """## The whole job

`jobs/prune.py --ratio 0.1`, as users run it: all of the above, and the training of its experts, every
session's scores, the explanation of every decision, weights, four tables and the run's record. *First* has
nothing to go on; *again* is the same command once more, as every night: experts and scores are there.
*Outside the stages* is Spark's start and end, and what lies between stages.
"""

_FLAME = """## Where the time of the Python goes

Seconds of Spark's Python workers in two passes over diginetica, on two cores, by the function of ours that
they were spent for, whatever library it called; [flame.svg](flame.svg) has the calls (save it and open it in
a browser: a click opens a frame). py-spy looked a hundred times a second and counted no process that waited.
"""

_SCALING = """## How it grows

500,000 generated sessions, two cores, a tenth kept, unless the row says otherwise; seconds of all stages of
a first pass, Spark's start excluded.
"""


_TRAINING = """## Whether training on less pays

`benchmarks/training.py`: seconds of training to a Recall@20 on the newest tenth of a data set's training
sessions, which is held out (some 10,000 prefixes of it), one seed and one learning rate. Lengths of training
double, and are of as many batches for all the data as for a part; the time of a level is read off between the
two lengths around it, along the logarithm of the time. Added is what pruning takes where experts and scores
are there (for the second ratio, recommender or night); in brackets what it takes from nothing. Training and
pruning have the same cores, and both times are those of the clock on the wall, Spark's start included.
"""


_LARGE = """## Larger than this machine, and a billion clicks

`make bench ARGS="--parts large"`: twenty million generated sessions, the graph's stages as above
(`--suspects`), on the same two cores; propagation by arrays, which is what `--propagation-engine auto` takes
for so many. *Busy* is what all tasks took together, in seconds of a core; *alone* what tasks took that had no
other beside them in their stage. *Spilled* is what did not fit into Spark's memory and went to disk and back,
*scratch* the most that all its files took there.
"""

_FORECAST = """
What larger inputs would take, drawn on from these figures (`benchmarks/forecast.py`), on {machines} machines
and a driver of {name}:
seconds of the stages, by parts that more cores divide and parts that they do not. **Nothing of it was seen on
a cluster**: no network, no straggler, no start of machines is in it. *difficulty* is the scoring of every
session, as on a first night or with new experts; after it only new and changed sessions are scored. The line
of *sample* is the least certain: the smaller size is picked by fewer tasks, the larger one in more rounds
(`sampling.task_edges`), each of which looks at sessions again. Explanation, weights and the other tables are
not in it; of the whole job they were a part that *The whole job* shows.
"""

_LIMITS = """
Where the first limits are:

- *Training* is six processes at most: on 16 cores they took 63 seconds for three passes over diginetica's
  906,140 clicks ([experts.md](experts.md)), and would take {training:.0f} hours for a billion. Train on a
  window (`jobs/train.py --since 30d`) once a week, and prune the same window or a little more.
- *Patterns* are held as arrays by the driver and by every Python worker (`sampling.max_patterns`, 64
  million by default, about 10 GB on the driver and 1.6 in each worker). Sessions like these reach that at
  {patterns} clicks. Beyond it the job stops before it picks anything, and names the `sampling.min_support`
  that leaves few enough: rare transitions then count for nothing.
- *Greedy picks in sequence*: what is *alone* above is mostly that, and no core makes it shorter.
- *The driver collects patterns and items*: start the job with `--conf spark.driver.maxResultSize=8g` where
  there are tens of millions; without, the job ends before it picks anything, and says so.
- *`prune_weight` is calibrated in one task*, which holds the items of all kept sessions. Beyond 250 million
  (10 GB) weights are the same of all, and the run says so.
"""


def page(found: dict[str, Any]) -> str:
    """The page, of the parts that there are; one that former code measured keeps its words."""
    parts = [_HEAD]
    for name, told in _PARTS.items():
        if name in found:
            part = found[name]
            parts += [part["text"]] if "text" in part else [*told(part["rows"]), _on(part)]
    return "\n".join(text.rstrip() + "\n" for text in parts)


def _training(rows: Sequence[Row]) -> list[str]:
    texts = [_TRAINING]
    for name in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == name]
        texts += [f"**{name}**\n", training_table(own), training_told(own)]
    return texts


def _on(part: Row) -> str:
    machine = part["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine.items() if k not in ("cpu", "cores", "GiB"))
    return f"({part['when']}; {machine['cpu']}, {machine['cores']} cores, {machine['GiB']} GiB; {versions})"


def _results(row: Row) -> list[Row]:
    """What a row's runs measured, those that ended."""
    return [run["result"] for run in row["runs"] if run["result"] is not None and not run["stopped"]]


def _passes(row: Row, at: int) -> list[Row]:
    """The first (0) or second (1) pass of each run of the Spark job that has one."""
    return [result["passes"][at] for result in _results(row) if len(result["passes"]) > at]


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """A median, with the least and the most in brackets where there are several.

    >>> spread([3.0, 1.0, 2.04]), spread([2.5], 2), spread([])
    ('2.0 (1.0–3.0)', '2.50', '')
    """
    if not values:
        return ""
    middle = f"{_median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def _digits(values: Sequence[float]) -> int:
    """Digits after the point that tell such seconds apart."""
    least = min(values, default=1.0)
    return 1 if least >= 10 else 2 if least >= 1 else 3


def _peers(rows: Sequence[Row]) -> list[str]:
    table = []
    for n in dict.fromkeys(row["n"] for row in rows):
        of_size = [row for row in rows if row["n"] == n]
        own = [one for row in of_size if row["way"] == "one-process" for one in _results(row)]
        for row in of_size:
            table.append([f"{n:,} ({row['input']})" if row is of_size[0] else "", *_peer(row, own)])
    heads = ["sessions", "way", "s", "times ours in one process", "GiB", "objective"]
    return [_PEERS, _table(table, heads), _BESIDE, _beside(rows), _WHY]


def _why(row: Row) -> str:
    """Why a program has no result, and where it was."""
    run = row["runs"][-1]
    # numpy says of which array.
    why = re.sub(r"Unable to allocate (\S+ \S+) for .*", r"\1 wanted", run["stopped"])
    return f"{why} ({run['at']})" if run["at"] else str(why)


def _peak(row: Row) -> str:
    return f"{max(run['peak'] for run in row['runs']):.1f}"


def _peer(row: Row, own: Sequence[Row]) -> list[str]:
    """A way's cells; beside ours in one process, where that has a result."""
    name = _WAYS[row["way"]]
    if not row["runs"]:
        return [name, "", row["skipped"], "", ""]
    results = _results(row)
    if not results:
        return [name, "", _why(row), _peak(row), ""]
    if row["way"].startswith("spark"):
        kinds = {"first": _passes(row, 0), "second": _passes(row, 1)}
    else:
        kinds = {"": results}
    seconds = {kind: [float(one["seconds"]) for one in of] for kind, of in kinds.items() if of}
    told = ", ".join(f"{spread(of, _digits(of))} {kind}".strip() for kind, of in seconds.items())
    if not own:
        return [name, told, "", _peak(row), ""]
    ours = _median(one["seconds"] for one in own)
    times = ", ".join(_times(_median(of) / ours) for of in seconds.values())
    objective = next(iter(kinds.values()))[0]["objective"] / own[0]["objective"]
    return [name, told, times, _peak(row), f"{objective:.3f}"]


def _times(ratio: float) -> str:
    """Two digits, or as many as a whole number has."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}" if ratio < 1 else f"{ratio:.1f}"


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    return str(tabulate(rows, heads, tablefmt="github", disable_numparse=True))


def _beside(rows: Sequence[Row]) -> str:
    """Each stage of the Spark job beside the same in one process, for each size that both came to."""
    table = []
    for n in dict.fromkeys(row["n"] for row in rows):
        ways = {row["way"]: row for row in rows if row["n"] == n}
        if not {"spark", "one-process"} <= ways.keys():
            continue
        first, second = (_passes(ways["spark"], at) for at in (0, 1))
        own = _results(ways["one-process"])
        if not first or not own:
            continue
        second = second or first
        for name in (*_STAGES, "all"):
            one, cold, warm = (_median(_seconds_of(of, name)) for of in (own, first, second))
            busy = "" if name == "all" else f"{_median(of['busy'][name] for of in second):.1f}"
            size = f"{n:,}" if name == _STAGES[0] else ""
            times = _times(warm / one) if one else ""
            table.append([size, name, f"{one:.{_digits([one])}f}", f"{cold:.1f}", f"{warm:.1f}", times, busy])
    heads = ["sessions", "stage", "one process, s", "Spark's first pass, s", "its second, s", "times", "busy"]
    return _table(table, heads)


def _seconds_of(runs: Sequence[Row], stage: str) -> list[float]:
    return [float(one["seconds"] if stage == "all" else one["stages"][stage]) for one in runs]


def _stages(rows: Sequence[Row]) -> list[str]:
    tables = []
    for row in rows:
        results, first, second = _results(row), _passes(row, 0), _passes(row, 1)
        if not results:
            tables.append(f"**{row['n']:,} sessions** ({row['input']}): {_why(row)}.\n")
            continue
        one = first[0]
        table = [
            [
                name,
                *(spread(_seconds_of(of, name)) for of in (first, second)),
                "" if name == "all" else _number(one["shuffled MB"].get(name)),
                "" if name == "all" else f"{one['peak GiB'].get(name, 0.0):.1f}",
            ]
            for name in (*_STAGES, "all")
        ]
        start, workers, commit = (
            _median(result[of] for result in results) for of in ("start", "workers", "commit")
        )
        head = (
            f"**{one['sessions']:,} sessions** ({row['input']}): {one['interactions']:,} clicks, "
            f"{one['edges']:,} edges, {one['patterns']:,} patterns; {one['kept']:,} sessions kept, "
            f"{one['touched']:.1f} times all edges looked at in {_rounds(one)}. "
            f"Spark's start {start:.1f} s, that of the Python workers {workers:.1f} s, "
            f"a Delta commit of one row {commit:.1f} s.\n"
        )
        heads = ["stage", "s, first pass", "s, second pass", "shuffled MB", "peak GiB"]
        tables.append(head + "\n" + _table(table, heads) + "\n")
    return [_STAGES_TEXT, "\n".join(tables)]


def _rounds(one: Row) -> str:
    return "one pass" if one["rounds"] == 1 else f"{one['rounds']} passes"


def _job(rows: Sequence[Row]) -> list[str]:
    """Each size's stages, with nothing there and with experts and scores there."""
    texts = [_JOB]
    for row in rows:
        first, again = _results({"runs": [row["first"]]}), _results(row)
        if not first or not again:
            texts.append(f"**{row['n']:,} sessions** ({row['input']}): {_why({'runs': [row['first']]})}.\n")
            continue
        names = list(dict.fromkeys([*first[0]["stages"], *again[0]["stages"]]))
        table = [
            [
                name,
                *(
                    spread([one["stages"][name] for one in of if name in one["stages"]])
                    for of in (first, again)
                ),
            ]
            for name in names
        ]
        walls = [[run["wall"] for run in runs] for runs in ([row["first"]], row["runs"])]
        outside = [
            [wall - sum(one["stages"].values()) for wall, one in zip(of, results, strict=True)]
            for of, results in zip(walls, (first, again), strict=True)
        ]
        table.append(["*outside the stages*", *(spread(of) for of in outside)])
        table.append(["**all**", *(spread(of) for of in walls)])
        one, peak = first[0], _peak({"runs": [row["first"], *row["runs"]]})
        texts.append(
            f"**{one['sessions_before']:,} sessions** ({row['input']}): {one['interactions_before']:,} "
            f"clicks; {one['sessions_after']:,} sessions kept; peak {peak} GiB.\n\n"
            + _table(table, ["stage", "s, first", "s, again"])
            + "\n"
        )
    return texts


#: Clicks that are asked about.
_ASKED = (1e9, 1e10)

# Functions that are told of; the rest is summed up.
_TOLD = 12


def _flame(rows: Sequence[Row]) -> list[str]:
    table = [[row["function"], f"{row['seconds']:.1f}"] for row in rows[:_TOLD]]
    rest = sum(row["seconds"] for row in rows[_TOLD:])
    table.append(["all others", f"{rest:.1f}"])
    return [_FLAME, _table(table, ["function", "s"])]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


#: What the others are compared with.
_BASE = ("sessions", 500_000)


def _scaling(rows: Sequence[Row]) -> list[str]:
    firsts = {(row["what"], row["value"]): _passes(row, 0) for row in rows}
    base = _median(_seconds_of(firsts[_BASE], "all")) if firsts.get(_BASE) else None
    table = []
    for row in rows:
        cells = ["", "", _why(row), ""]
        if first := firsts[row["what"], row["value"]]:
            seconds = _seconds_of(first, "all")
            times = "" if base is None else f"{_median(seconds) / base:.2f}"
            cells = [f"{first[0]['interactions']:,}", f"{first[0]['edges']:,}", spread(seconds), times]
        table.append([row["what"], f"{row['value']:,}", *cells, _peak(row)])
    told = _table(table, ["what", "value", "clicks", "edges", "s", "of the base", "GiB"])
    sizes = [first for (what, _), first in firsts.items() if what == "sessions" and first]
    if len(sizes) < 2:
        return [_SCALING, told]
    clicks = np.log([first[0]["interactions"] for first in sizes])
    took = np.log([_median(_seconds_of(first, "all")) for first in sizes])
    slope = float(np.polyfit(clicks, took, 1)[0])
    last = float((took[-1] - took[-2]) / (clicks[-1] - clicks[-2]))
    return [
        _SCALING,
        f"{told}\n\nThe slope of log seconds on log clicks over the sizes is {slope:.2f} (1 would be in "
        f"proportion; Spark's fixed cost makes it less), between the two largest {last:.2f}.\n",
    ]


def _large(rows: Sequence[Row]) -> list[str]:
    """Each size's stages, and what larger ones would take."""
    texts = []
    for row in rows:
        first = _passes(row, 0)[0]
        table = [
            [
                name,
                f"{first['stages'][name]:.0f}",
                *(f"{first[kind][name]:,.0f}" for kind in ("busy", "alone", "shuffled MB", "spilled MB")),
                f"{first['scratch GB'].get(name, 0.0):.1f}",
                f"{first['peak GiB'].get(name, 0.0):.1f}",
            ]
            for name in _STAGES
        ]
        table.append(["all", f"{first['seconds']:.0f}", *[""] * 6])
        heads = [
            "stage",
            "s",
            "busy, core s",
            "alone, s",
            "shuffled MB",
            "spilled MB",
            "scratch GB",
            "peak GiB",
        ]
        texts.append(
            f"**{first['sessions']:,} sessions**: {first['interactions']:,} clicks, {first['edges']:,} "
            f"edges, {first['patterns']:,} patterns; {first['kept']:,} sessions kept in {_rounds(first)}.\n\n"
            + _table(table, heads)
        )
    results = [_results(row)[0] for row in rows]
    found = [forecast(results, clicks, CLUSTER) for clicks in _ASKED]
    table = [[name, *(f"{one.seconds[name]:,.0f}" for one in found)] for name in found[0].seconds]
    table += [
        ["**all**", *(f"**{sum(one.seconds.values()) / 3600:.1f} hours**" for one in found)],
        ["money", *(f"${one.dollars:,.0f}" for one in found)],
        ["patterns", *(f"{one.patterns / 1e6:,.0f} million" for one in found)],
        ["... on the driver", *(f"{one.driver / 1e9:,.0f} GB" for one in found)],
        ["... on a machine", *(f"{one.machine / 1e9:,.0f} GB" for one in found)],
        ["fit there", *("yes" if one.fits else "**no**" for one in found)],
        ["shuffled", *(f"{one.shuffled / 1e9:,.0f} GB" for one in found)],
    ]
    heads = ["stage", *(f"{clicks / 1e9:g} billion clicks" for clicks in _ASKED)]
    most = clicks_at(results, SamplingSettings().max_patterns)
    return [
        _LARGE,
        "\n\n".join(texts),
        _FORECAST.format(machines=CLUSTER.machines, name=CLUSTER.name),
        _table(table, heads),
        "\nWhere patterns do not fit, time and money are what the run would take if they did: of such an "
        "input a `sampling.min_support` has to leave fewer.\n",
        _LIMITS.format(training=63 / 906_140 * 1e9 / 3600, patterns=f"{most / 1e9:.1f} billion"),
    ]


def training_told(rows: list[Row]) -> str:
    """What the table of a data set says of each ratio, an item of a list."""
    levels = [(target, share) for target in dict.fromkeys(row["target"] for row in rows) for share in _LEVELS]
    told = []
    for ratio in sorted({row["ratio"] for row in rows} - {1.0}, reverse=True):
        pruning = _pruning(rows, ratio)
        shares, paid = [], 0
        for target, share in levels:
            level = share * _best(rows, target)
            less, all_of_it = (seconds_to(rows, target, r, level) for r in (ratio, 1.0))
            if less is not None and all_of_it is not None:
                shares.append(less / all_of_it)
                paid += less + pruning["again"] < all_of_it
        text = f"{ratio:.0%}: {len(shares)} of {len(levels)} levels are reached"
        if shares:
            mean = statistics.geometric_mean(shares)
            text += f" in {mean:.0%} of the training time (geometric mean); pruning included, {paid} sooner"
        told.append(f"- {text}.")
    return "\n".join(told)


def _best(rows: list[Row], target: str) -> float:
    """The Recall@20 that a target reaches on all the data."""
    return float(max(row["recall"] for row in rows if row["target"] == target and row["ratio"] == 1.0))


def _pruning(rows: list[Row], ratio: float) -> Row:
    """Seconds of pruning at a ratio: `first`, and `again`."""
    return next(Row(row["pruning"]) for row in rows if row["ratio"] == ratio)


def seconds_to(rows: list[Row], target: str, ratio: float, level: float) -> float | None:
    """Seconds of training to a level, between the two lengths around it; None where none reaches it.

    Where the shortest length reaches it, its seconds: it may have taken less.
    """
    own = [row for row in rows if (row["target"], row["ratio"]) == (target, ratio)]
    before: Row | None = None
    for row in sorted(own, key=lambda row: float(row["seconds"])):
        if row["recall"] >= level:
            if before is None:
                return float(row["seconds"])
            part = (level - before["recall"]) / (row["recall"] - before["recall"])
            return float(before["seconds"] * (row["seconds"] / before["seconds"]) ** part)
        before = row
    return None


def training_table(rows: list[Row]) -> str:
    """Seconds to each level that all the data reach, by target and ratio."""
    ratios = sorted({row["ratio"] for row in rows}, reverse=True)
    lines = []
    for target in dict.fromkeys(row["target"] for row in rows):
        best = _best(rows, target)
        for share in _LEVELS:
            cells = []
            for ratio in ratios:
                found = seconds_to(rows, target, ratio, share * best)
                if found is None:
                    cells.append("not reached")
                elif ratio == 1.0:
                    cells.append(f"{found:.0f}")
                else:
                    pruning = _pruning(rows, ratio)
                    cells.append(f"{found:.0f} + {pruning['again']:.0f} ({pruning['first']:.0f})")
            lines.append([target, f"{100 * share * best:.1f}", f"{share:.0%}", *cells])
    heads = ["recommender", "Recall@20", "of all's best"]
    heads += ["all" if ratio == 1.0 else f"{ratio:.0%}" for ratio in ratios]
    return _table(lines, heads)


#: What is told of each part, in the page's order.
_PARTS: dict[str, Callable[[Sequence[Row]], list[str]]] = {
    "peers": _peers,
    "stages": _stages,
    "job": _job,
    "flame": _flame,
    "scaling": _scaling,
    "large": _large,
    "training": _training,
}
