"""docs/performance.md, from what `bench.py` measured."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
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
other; another machine has others. `benchmarks/results.json` has them all, with ranges. Regenerate:

```
make bench                                  # two hours; ARGS="--parts peers,scaling" for some
```

Parts that are dated 2026-11-29 or before weigh patterns by counts (`--sampling-demand recency`), as was the
default then; what the forecast of demand adds to the graph is in [method.md](method.md).
"""

_PEERS = """## Beside what others would do

A tenth of the clicks is kept; difficulty is the same made-up number everywhere, so that no expert is in any
time.

- *Spark job*: read, encode, graph, propagation, sampling, a Delta table of the kept rows; Spark's start and
  that of the Python workers excluded. *First* is the first pass of a session, which is what `spark-submit`
  pays; *fastest* is the best of those after it, in which Spark has compiled what it needs.
- *ours in one process* (`benchmarks/one_process.py`): the same method, from Parquet to Parquet, in numpy,
  scipy and numba, one thread but where a library takes more: the honest alternative for whoever has one
  machine. The tests hold both to the same picks from the same scores.
- The others are given sessions, graph and difficulty for nothing, and are timed over their own work, for the
  same number of clicks. D2 has the exact graph of nearest neighbours and a heap for its messages; apricot
  knows prices of sessions, but no weights of patterns. Each may take 10 minutes and 20 GiB; who could not
  finish is not asked for more sessions.

*Objective* is what the kept set covers, as a share of ours in one process: the greedy's own aim, so that
the others cannot be expected to reach it; it says how far they are from what ours is for. D2 and CCS have
other aims.
"""

_BESIDE = """## Each stage beside its arithmetic

Of the same runs: what a stage takes ours in one process, which is its arithmetic and its files and little
else, on one core; and on Spark with two.
"""

_WHY = """
The aim was at most 3 times ours in one process at 186,670 sessions and no more than it at a million, with
each stage within twice its arithmetic. Whoever has sessions that fit into one machine's memory, and no need
of Delta, of clusters or of reasons, is better served by one process. What stands between, by profiles of
these runs (Spark's event log; py-spy, below):

- *Compiling.* The fastest pass does what the first one does, with the same data, after the JVM has compiled
  Spark's queries. `spark-submit` never sees that pass; a notebook and a long-lived cluster do.
- *Many small jobs.* A pass is a chain of small Spark jobs. Planning and starting one takes its time whatever
  it holds: that is nearly all of the time at 10,000 sessions.
- *Edges as rows.* GraphFrames' `aggregateMessages` sees each edge as a row, joins it with the vertices three
  times and groups it, twice a round; the arithmetic is a sparse product, a tenth of a second for millions of
  edges. `--propagation-engine arrays` does it so, bit for bit the same, and is what to use for speed.
- *In and out of Python.* Patterns and picks are found by the same numpy and numba code on both sides; Spark
  adds what it takes to bring rows to Python and back, and a shuffle.
- *One after the other.* Greedy picks in sequence: what one task can hold is picked by one task, as long as in
  one process; the other core waits.
- *Delta.* A write is a commit with its checks and its snapshot, a second or so; one process writes a file.
"""

_STAGES_TEXT = """## Where the time goes

`benchmarks/scale.py --floor 1`: with a floor of one session an item, and with suspects set aside, as a run
has them. Seconds of the first pass; bytes are those that Spark's shuffles wrote; memory is that of all
processes together, shared pages counted once, at its largest within the stage.
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
sessions, which is held out (some 10,000 prefixes of it); of the lengths of training that were tried, the
shortest that reaches the level.
Added to them is what pruning takes once its experts have scored the sessions (for the second ratio,
recommender or night), in brackets what all of pruning takes from nothing. 10 % was pruned first, 30 % after
it in the same session, whose JVM was warm: begun with 30 %, its pruning would take about what that of 10 %
does.
"""


_LARGE = """## Larger than this machine, and a billion clicks

`make bench ARGS="--parts large"`: twenty million generated sessions, as above (`--floor 1`), on the same two
cores; propagation by arrays, which is what `--propagation-engine auto` takes for so many. *Busy* is what all
tasks took together, in seconds of a core; *alone* what tasks took that had no other beside them in their
stage. *Spilled* is what did not fit into Spark's memory and went to disk and back, *scratch* the most that
all its files took there.
"""

_FORECAST = """
What larger inputs would take, drawn on from these figures (`benchmarks/forecast.py`), on {machines} machines
and a driver of {name}:
seconds of the stages, by parts that more cores divide and parts that they do not. **Nothing of it was seen on
a cluster**: no network, no straggler, no start of machines is in it. *difficulty* is the scoring of every
session, as on a first night or with new experts; after it only new and changed sessions are scored. The line
of *sample* is the least certain: the smaller size is picked by one task, the larger one in rounds
(`sampling.task_edges`), each of which looks at sessions again.
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
    """The page, of the parts that there are."""
    parts = [_HEAD]
    if "peers" in found:
        rows = found["peers"]["rows"]
        parts += [_PEERS, _peers(rows), _BESIDE, _beside(rows), _WHY, _on(found["peers"])]
    if "stages" in found:
        parts += [_STAGES_TEXT, _stages(found["stages"]["rows"]), _on(found["stages"])]
    if "flame" in found:
        parts += [_FLAME, _flame(found["flame"]["rows"]), _on(found["flame"])]
    if "scaling" in found:
        parts += [_SCALING, _scaling(found["scaling"]["rows"]), _on(found["scaling"])]
    if "large" in found:
        parts += [_LARGE, _large(found["large"]["rows"]), _on(found["large"])]
    if "training" in found:
        parts.append(_TRAINING)
        rows = found["training"]["rows"]
        for name in dict.fromkeys(row["data"] for row in rows):
            own = [row for row in rows if row["data"] == name]
            parts += [f"**{name}**\n", training_table(own), training_told(own)]
        parts.append(_on(found["training"]))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _on(part: Row) -> str:
    machine = part["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine.items() if k not in ("cpu", "cores", "GiB"))
    return f"({part['when']}; {machine['cpu']}, {machine['cores']} cores, {machine['GiB']} GiB; {versions})"


def _peers(rows: Sequence[Row]) -> str:
    table = []
    for n in dict.fromkeys(row["n"] for row in rows):
        of_size = [row for row in rows if row["n"] == n]
        own = next((row.get("result") for row in of_size if row["way"] == "one-process"), None)
        for row in of_size:
            table.append([f"{n:,} ({row['input']})" if row is of_size[0] else "", *_peer(row, own)])
    heads = ["sessions", "way", "s", "times ours in one process", "GiB", "objective"]
    return tabulate(table, heads, tablefmt="github", disable_numparse=True)


def _why(row: Row) -> str:
    """Why a program has no result, and where it was."""
    # numpy says of which array.
    why = re.sub(r"Unable to allocate (\S+ \S+) for .*", r"\1 wanted", row["stopped"])
    return f"{why} ({row['at']})" if row["at"] else str(why)


def _peer(row: Row, own: Row | None) -> list[str]:
    """A way's cells; beside ours in one process, where that has a result."""
    name, result = _WAYS[row["way"]], row.get("result")
    if row.get("skipped"):
        return [name, "", f"not asked: stopped at {row['skipped']:,}", "", ""]
    if row.get("stopped") or result is None:
        return [name, "", _why(row), f"{row['peak']:.1f}", ""]
    if row["way"].startswith("spark"):
        passes = [result["first"], result["fastest"]]
        seconds = "{:.1f} first, {:.1f} fastest".format(*(one["seconds"] for one in passes))
    else:
        passes = [result]
        seconds = f"{result['seconds']:.{2 if result['seconds'] >= 1.0 else 3}f}"
    peak = f"{row['peak']:.1f}"
    if own is None:
        return [name, seconds, "", peak, ""]
    times = ", ".join(_times(one["seconds"] / own["seconds"]) for one in passes)
    return [name, seconds, times, peak, f"{passes[0]['objective'] / own['objective']:.3f}"]


def _times(ratio: float) -> str:
    """Two digits, or as many as a whole number has."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}" if ratio < 1 else f"{ratio:.1f}"


def _beside(rows: Sequence[Row]) -> str:
    """Each stage of the Spark job beside the same in one process, for each size that both came to."""
    table = []
    for n in dict.fromkeys(row["n"] for row in rows):
        results = {row["way"]: row.get("result") for row in rows if row["n"] == n}
        spark, own = results.get("spark"), results.get("one-process")
        if spark is None or own is None:
            continue
        for name in (*_STAGES, "all"):
            one, first, fastest = (
                of["seconds"] if name == "all" else of["stages"][name]
                for of in (own, spark["first"], spark["fastest"])
            )
            size = f"{n:,}" if name == _STAGES[0] else ""
            times = _times(fastest / one) if one else ""
            table.append([size, name, f"{one:.2f}", f"{first:.1f}", f"{fastest:.1f}", times])
    heads = ["sessions", "stage", "one process, s", "Spark's first pass, s", "its fastest, s", "times"]
    return tabulate(table, heads, tablefmt="github", disable_numparse=True)


def _stages(rows: Sequence[Row]) -> str:
    tables = []
    for row in rows:
        result = row["result"]
        if row["stopped"] or result is None:
            tables.append(f"**{row['n']:,} sessions** ({row['input']}): {_why(row)}.\n")
            continue
        first, fastest = result["first"], result["fastest"]
        table = [
            [
                name,
                f"{first['stages'][name]:.1f}",
                f"{fastest['stages'][name]:.1f}" if fastest != first else "",
                _number(first["shuffled MB"].get(name)),
                f"{first['peak GiB'].get(name, 0.0):.1f}",
            ]
            for name in _STAGES
        ]
        again = f"{fastest['seconds']:.1f}" if fastest != first else ""
        table.append(["all", f"{first['seconds']:.1f}", again, "", ""])
        head = (
            f"**{first['sessions']:,} sessions** ({row['input']}): {first['interactions']:,} clicks, "
            f"{first['edges']:,} edges, {first['patterns']:,} patterns; {first['kept']:,} sessions kept, "
            f"{first['touched']:.1f} times all edges looked at in {first['rounds']} rounds. "
            f"Spark's start {result['start']:.1f} s, that of the Python workers {result['workers']:.1f} s, "
            f"a Delta commit of one row {result['commit']:.1f} s.\n"
        )
        heads = ["stage", "s, first pass", "s, fastest pass", "shuffled MB", "peak GiB"]
        tables.append(head + "\n" + tabulate(table, heads, tablefmt="github", disable_numparse=True) + "\n")
    return "\n".join(tables)


#: Clicks that are asked about.
_ASKED = (1e9, 1e10)

# Functions that are told of; the rest is summed up.
_TOLD = 12


def _flame(rows: Sequence[Row]) -> str:
    table = [[row["function"], f"{row['seconds']:.1f}"] for row in rows[:_TOLD]]
    rest = sum(row["seconds"] for row in rows[_TOLD:])
    table.append(["all others", f"{rest:.1f}"])
    return tabulate(table, ["function", "s"], tablefmt="github", disable_numparse=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _scaling(rows: Sequence[Row]) -> str:
    done = [row for row in rows if row["result"] is not None and not row["stopped"]]
    base = next((row["result"]["first"] for row in done if (row["what"], row["value"]) == ("cores", 2)), None)
    table = []
    for row in rows:
        cells = ["", "", _why(row), ""]
        if row in done:
            first = row["result"]["first"]
            times = "" if base is None else f"{first['seconds'] / base['seconds']:.2f}"
            cells = [f"{first['interactions']:,}", f"{first['edges']:,}", f"{first['seconds']:.1f}", times]
        table.append([row["what"], f"{row['value']:,}", *cells, f"{row['peak']:.1f}"])
    heads = ["what", "value", "clicks", "edges", "s", "of the base", "GiB"]
    told = tabulate(table, heads, tablefmt="github", disable_numparse=True)
    sizes = [row["result"]["first"] for row in done if row["what"] == "sessions"]
    if len(sizes) < 2:
        return told
    clicks, seconds = (np.log([one[name] for one in sizes]) for name in ("interactions", "seconds"))
    slope = float(np.polyfit(clicks, seconds, 1)[0])
    last = float((seconds[-1] - seconds[-2]) / (clicks[-1] - clicks[-2]))
    return (
        f"{told}\n\nThe slope of log seconds on log clicks over the sizes is {slope:.2f} (1 would be in "
        f"proportion; Spark's fixed cost makes it less), between the two largest {last:.2f}.\n"
    )


def _large(rows: Sequence[Row]) -> str:
    """Each size's stages, and what larger ones would take."""
    texts = []
    for row in rows:
        first = row["result"]["first"]
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
            f"edges, {first['patterns']:,} patterns; {first['kept']:,} sessions kept in {first['rounds']} "
            "rounds.\n\n" + tabulate(table, heads, tablefmt="github", disable_numparse=True)
        )
    results = [row["result"] for row in rows]
    found = [forecast(results, clicks, CLUSTER) for clicks in _ASKED]
    table = [[name, *(f"{one.seconds[name]:,.0f}" for one in found)] for name in found[0].seconds]
    table += [
        ["**all**", *(f"**{sum(one.seconds.values()) / 3600:.1f} hours**" for one in found)],
        ["money", *(f"${one.dollars:,.0f}" for one in found)],
        ["patterns", *(f"{one.patterns / 1e6:,.0f} million" for one in found)],
        ["shuffled", *(f"{one.shuffled / 1e9:,.0f} GB" for one in found)],
    ]
    heads = ["stage", *(f"{clicks / 1e9:g} billion clicks" for clicks in _ASKED)]
    most = clicks_at(results, SamplingSettings().max_patterns)
    return "\n".join(
        [
            "\n\n".join(texts),
            _FORECAST.format(machines=CLUSTER.machines, name=CLUSTER.name),
            tabulate(table, heads, tablefmt="github", disable_numparse=True),
            _LIMITS.format(training=63 / 906_140 * 1e9 / 3600, patterns=f"{most / 1e9:.1f} billion"),
        ]
    )


def training_told(rows: list[Row]) -> str:
    """What the table of a data set says of each ratio, an item of a list."""
    levels = [(target, share) for target in dict.fromkeys(row["target"] for row in rows) for share in _LEVELS]
    told = []
    for ratio in sorted({row["ratio"] for row in rows} - {1.0}, reverse=True):
        shares, paid = [], 0
        for target, share in levels:
            level = share * _best(rows, target)
            less, all_of_it = (_shortest(rows, target, r, level) for r in (ratio, 1.0))
            if less is not None and all_of_it is not None:
                shares.append(less["seconds"] / all_of_it["seconds"])
                paid += less["seconds"] + _again(less) < all_of_it["seconds"]
        text = f"{ratio:.0%}: {len(shares)} of {len(levels)} levels are reached"
        if shares:
            mean = statistics.geometric_mean(shares)
            text += f" in {mean:.0%} of the training time (geometric mean); pruning included, {paid} sooner"
        told.append(f"- {text}.")
    return "\n".join(told)


def _best(rows: list[Row], target: str) -> float:
    """The Recall@20 that a target reaches on all the data."""
    return float(max(row["recall"] for row in rows if row["target"] == target and row["ratio"] == 1.0))


def _again(row: Row) -> float:
    """Seconds of pruning where the sessions have been scored."""
    return float(sum(v for k, v in row["stages"].items() if k not in ("training", "difficulty")))


def _shortest(rows: list[Row], target: str, ratio: float, level: float) -> Row | None:
    """The shortest training that reaches a level, or None."""
    reached = [r for r in rows if (r["target"], r["ratio"]) == (target, ratio) and r["recall"] >= level]
    return min(reached, key=lambda row: float(row["seconds"]), default=None)


def training_table(rows: list[Row]) -> str:
    """Seconds to each level that all the data reach, by target and ratio."""
    ratios = sorted({row["ratio"] for row in rows}, reverse=True)
    lines = []
    for target in dict.fromkeys(row["target"] for row in rows):
        best = _best(rows, target)
        for share in _LEVELS:
            cells = []
            for ratio in ratios:
                found = _shortest(rows, target, ratio, share * best)
                if found is None:
                    cells.append("not reached")
                elif ratio == 1.0:
                    cells.append(f"{found['seconds']:.0f}")
                else:
                    cells.append(f"{found['seconds']:.0f} + {_again(found):.0f} ({found['pruning']:.0f})")
            lines.append([target, f"{100 * share * best:.1f}", f"{share:.0%}", *cells])
    heads = ["recommender", "Recall@20", "of all's best"]
    heads += ["all" if ratio == 1.0 else f"{ratio:.0%}" for ratio in ratios]
    return tabulate(lines, heads, tablefmt="github", disable_numparse=True)
