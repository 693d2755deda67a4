"""What the benchmarks measure with: limits, peers, inputs, and the page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import flame, guard, inputs, one_process, peers
from benchmarks.forecast import Cluster, clicks_at, forecast
from benchmarks.meter import limited
from benchmarks.page import page, seconds_to, training_table, training_told
from prune_lib.settings import SamplingSettings

MACHINE = {"cpu": "a chip", "cores": 2, "GiB": 4, "python": "3.11"}
_SAYS = "import json, sys, time\nsay = lambda **what: print(json.dumps(what), flush=True)\n"


def run(code: str, seconds: float = 60.0, gib: float = 20.0):
    return limited([sys.executable, "-c", _SAYS + code], seconds=seconds, gib=gib)


def test_a_program_that_ends_gives_its_result_and_where_it_was() -> None:
    ended = run("say(at='begun'); print('a line of no account'); say(seconds=1.5)")
    assert (ended.result, ended.at, ended.stopped) == ({"seconds": 1.5}, "begun", "")


def test_a_program_that_takes_too_long_or_too_much_is_stopped_and_says_where() -> None:
    late = run("say(at='waiting'); time.sleep(600)", seconds=1.0)
    assert late.result is None and late.at == "waiting" and late.stopped.startswith("stopped after")
    assert late.seconds < 60
    wide = run(
        "say(at='taking'); held = bytearray(400 * 2**20); held[::4096] = held[::4096]; time.sleep(600)",
        gib=0.2,
    )
    assert wide.result is None and wide.at == "taking" and wide.stopped == "stopped at 0.2 GiB"
    assert wide.peak > 0.2


def test_a_program_that_fails_or_gets_no_memory_says_so() -> None:
    assert run("sys.exit(3)").stopped == "failed with exit code 3"
    refused = run("say(at='begun'); say(memory='54 GiB wanted')")
    assert (refused.result, refused.stopped) == (None, "out of memory: 54 GiB wanted")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> one_process.Sessions:
    return one_process.encode(one_process.read(inputs.generated(tmp_path_factory.mktemp("in"), 1_500)))


@pytest.fixture(scope="module")
def graph(sessions: one_process.Sessions) -> one_process.Graph:
    return one_process.build(sessions, SamplingSettings())


def test_neighbours_are_the_nearest(sessions: one_process.Sessions) -> None:
    sets = peers.unit_sets(sessions)
    ends, neighbour, distance = peers.nearest(sets, 5)
    cosine = (sets @ sets.T).toarray()
    np.fill_diagonal(cosine, 0.0)
    for row in range(0, sessions.n_sessions, 97):
        part = slice(ends[row - 1] if row else 0, ends[row])
        best = np.sort(cosine[row])[::-1][:5]
        wanted = np.sqrt(np.maximum(2.0 - 2.0 * best[best > 0], 0.0))
        np.testing.assert_allclose(np.sort(distance[part]), np.sort(wanted), atol=1e-7)
        assert row not in neighbour[part]


@pytest.mark.parametrize("name", ["d2", "ccs"])
def test_a_peer_keeps_different_sessions_within_its_budget(
    name: str, sessions: one_process.Sessions, graph: one_process.Graph
) -> None:
    budget = sessions.items.size // 10
    found = peers.measured_peer(name, sessions, graph, budget)
    picks = peers.PEERS[name](sessions, graph, budget)()
    assert np.unique(picks).size == picks.size == found["kept"]
    assert 0.9 * budget < found["kept interactions"] <= budget
    ours = one_process.sample(
        graph, sessions, one_process.score(sessions.n_sessions), budget, SamplingSettings()
    )
    assert found["objective"] < graph.objective(ours)


def test_the_plain_greedy_of_the_guard_picks_what_ours_picks(graph: one_process.Graph) -> None:
    assert guard.plain_greedy(graph, 40) == guard.our_greedy(graph, 40)


def test_a_ratio_has_fallen_at_half_of_what_it_was() -> None:
    assert guard.fallen_of({"a": 1.0, "b": 1.1}, {"a": 2.0, "b": 2.0}) == ["a"]


def test_a_ratio_that_is_renamed_or_not_measured_is_not_passed_over() -> None:
    assert guard.unmatched(["a", "new"], ["a", "gone"]) == ["gone", "new"]


def test_inputs_have_as_many_clicks_with_a_hub_and_when_joined(tmp_path: Path) -> None:
    plain, hub, joined = (
        pq.read_table(inputs.generated(tmp_path, 1_000, **how)) for how in ({}, {"hub": 0.3}, {"joined": 4})
    )
    clicks = [len(t.column("items").combine_chunks().flatten()) for t in (plain, hub, joined)]
    assert clicks[0] == clicks[1] == clicks[2]
    assert (plain.num_rows, hub.num_rows, joined.num_rows) == (1_000, 1_000, 250)
    with_hub = sum(0 in row for row in hub.column("items").to_pylist())
    assert 200 < with_hub < 400 and not any(0 in row for row in plain.column("items").to_pylist())


SIZES = ("sessions_before", "interactions_before", "sessions_after")


def ended(
    result: dict[str, Any] | None, stopped: str = "", at: str = "", *, wall: float = 9.0, peak: float = 1.0
) -> dict[str, Any]:
    """How a program ended, as the results have it."""
    return {"result": result, "stopped": stopped, "at": at, "wall": wall, "peak": peak}


def test_the_page_says_what_was_measured_and_where_a_peer_stopped() -> None:
    stages = dict.fromkeys(("read", "encode", "build", "propagate", "sample", "write"), 1.0)
    one = {
        "stages": stages,
        "busy": dict.fromkeys(stages, 0.5),
        "peak GiB": stages,
        "shuffled MB": {**stages, "read": None},
        "sessions": 1000,
        "interactions": 5000,
        "edges": 9000,
        "patterns": 700,
        "kept": 80,
        "rounds": 1,
        "touched": 2.5,
        "objective": 1.5,
        "seconds": 6.0,
    }
    spark = {"passes": [one, {**one, "seconds": 3.0}], "start": 5.0, "workers": 2.0, "commit": 0.5}
    common = {"input": "x", "n": 1000}
    own = {"seconds": 1.5, "objective": 1.5, "stages": {**stages, "sample": 0.25}}
    wide = "out of memory: Unable to allocate 54.4 GiB for an array with shape (7,)"
    rows = [
        {**common, "way": "spark", "runs": [ended(spark), ended(spark)]},
        {**common, "way": "one-process", "runs": [ended(own), ended({**own, "seconds": 2.5}), ended(own)]},
        {**common, "way": "d2", "runs": [ended(None, "stopped after 10 minutes", "sending messages")]},
        {**common, "way": "ccs", "runs": [], "skipped": "not asked: stopped at 500"},
        {**common, "way": "apricot-facility", "runs": [ended(None, wide, "similarities")]},
    ]
    sizes = [
        {
            **common,
            "what": "sessions",
            "value": n,
            "runs": [ended({"passes": [{**one, "interactions": n, "seconds": n / 9}]})],
        }
        for n in (100, 200, 500_000)
    ]
    nights = [
        ended({"stages": {"graph": second}, **dict.fromkeys(SIZES, 7)}, wall=20.0) for second in (3.0, 5.0)
    ]
    trained = ended({"stages": {"training": 9.0, "graph": 4.0}, **dict.fromkeys(SIZES, 7)}, wall=30.0)
    parts = {
        "peers": rows,
        "stages": [{**common, "runs": [ended(spark)]}],
        "job": [{**common, "first": trained, "runs": nights}],
        "scaling": [*sizes, {**common, "what": "cores", "value": 1, "runs": [ended({"passes": [one]})]}],
        "training": [
            {"data": name, "target": "sasrec", "ratio": 1.0, "seconds": seconds, "recall": 0.5, "pruning": {}}
            for name, seconds in (("one", 3.0), ("two", 7.0))
        ],
        "flame": [{"function": f"f{n}", "seconds": 2.0} for n in range(15)],
    }
    text = page({name: {"when": "today", "machine": MACHINE, "rows": of} for name, of in parts.items()})
    lines = ["".join(line.split()) for line in text.splitlines()]
    assert any(
        "Sparkjob|6.00(6.00–6.00)first,3.00(3.00–3.00)second|4.0,2.0|1.0|1.000|" in line for line in lines
    )
    assert "||oursinoneprocess|1.50(1.50–2.50)|1.0|1.0|1.000|" in lines
    assert "|training|9.0||" in lines and "|graph|4.0|4.0(3.0–5.0)|" in lines
    assert "|*outsidethestages*|17.0|16.0(15.0–17.0)|" in lines and "|**all**|30.0|20.0(20.0–20.0)|" in lines
    assert any("stoppedafter10minutes(sendingmessages)" in line for line in lines)
    assert any("notasked:stoppedat500" in line for line in lines)
    assert any("||outofmemory:54.4GiBwanted(similarities)|" in line for line in lines)
    assert "||sample|0.250|1.0|1.0|4.0|0.5|" in lines and "||all|1.50|6.0|3.0|2.0||" in lines
    assert "|allothers|6.0|" in lines
    assert lines.index("**one**") < lines.index("|sasrec|50.0|100%|3|")
    assert lines.index("**two**") < lines.index("|sasrec|50.0|100%|7|")
    assert "a Delta commit of one row 0.5 s" in " ".join(text.split())
    assert "slope of log seconds on log clicks over the sizes is 1.00" in " ".join(text.split())


def test_a_program_of_ours_that_was_stopped_is_told_of_as_others_are() -> None:
    common = {"input": "x", "n": 2000}
    stages = {name: 1.0 for name in ("read", "encode", "build", "propagate", "sample", "write")}
    first = {"stages": stages, "seconds": 6.0, "interactions": 50, "edges": 90, "objective": 1.5}
    spark, out = (
        [ended({"passes": [first]}, peak=20.0)],
        [ended(None, "stopped at 20 GiB", "build", peak=20.0)],
    )
    ways = {"spark": spark, "one-process": out, "d2": [ended(first, peak=20.0)]}
    sizes = [{**common, "what": "sessions", "value": n, "runs": out} for n in (100, 200)]
    base = {**common, "what": "sessions", "value": 500_000, "runs": spark}
    text = "".join(
        page({name: {"machine": MACHINE, "when": "today", "rows": rows}})
        for name, rows in (
            ("peers", [{**common, "way": way, "runs": runs} for way, runs in ways.items()]),
            ("stages", [{**common, "runs": out}]),
            ("job", [{**common, "first": out[0], "runs": out}]),
            ("scaling", [*sizes, base]),
            ("scaling", [{**sizes[0], "runs": spark}, {**common, "what": "cores", "value": 1, "runs": out}]),
        )
    )
    lines = ["".join(line.split()) for line in text.splitlines()]
    assert "||oursinoneprocess||stoppedat20GiB(build)|20.0||" in lines
    assert any("Sparkjob|6.00first||20.0||" in line for line in lines)
    assert "||D2|6.00||20.0||" in lines
    assert lines.count("**2,000sessions**(x):stoppedat20GiB(build).") == 2
    assert "|sessions|100|||stoppedat20GiB(build)||20.0|" in lines
    assert "|sessions|500,000|50|90|6.0|1.00|20.0|" in lines
    assert "|sessions|100|50|90|6.0||20.0|" in lines and "slope" not in text


def measured(sessions: int) -> dict[str, Any]:
    """On two cores: a thousand clicks are 3 core seconds of many tasks and 2 of one; 10 are nobody's."""
    thousands = sessions * 5 / 1000
    stages = ("read", "encode", "build", "propagate", "sample", "write")
    every = lambda value: dict.fromkeys(stages, value)  # noqa: E731
    return {
        "cores": 2,
        "passes": [
            {
                "stages": every(10 + 2 * thousands + 3 * thousands / 2),
                "busy": every(5 * thousands),
                "alone": every(2 * thousands),
                **{
                    name: every(thousands) for name in ("shuffled MB", "spilled MB", "scratch GB", "peak GiB")
                },
                "sessions": sessions,
                "interactions": 5 * sessions,
                "edges": 9 * sessions,
                "patterns": round(100 * sessions**0.5),
                "kept": sessions // 10,
                "rounds": 7,
                "seconds": 6 * (10 + 3.5 * thousands),
            }
        ],
    }


def test_what_a_larger_input_would_take_by_what_cores_divide_and_what_they_do_not() -> None:
    rows = [measured(10_000), measured(40_000)]
    found = forecast(rows, 1e9, Cluster("big", machines=4, cores=10, price=2.0), scoring=0.004)
    million = 1e9 / 1000
    assert found.seconds["sample"] == pytest.approx(10 + 2 * million + 3 * million / 40)
    assert found.seconds["difficulty"] == pytest.approx(1e9 / 5 * 0.004 / 40)
    assert found.patterns == pytest.approx(100 * (1e9 / 5) ** 0.5)
    assert found.shuffled == pytest.approx(6 * million * 1e6)
    assert found.dollars == pytest.approx(sum(found.seconds.values()) / 3600 * 5 * 2.0)
    assert clicks_at(rows, 1e6) == pytest.approx(5e8)
    # On the machine itself, what was measured.
    here = forecast(rows, 200_000, Cluster("this", machines=1, cores=2, price=0.0))
    assert here.seconds["build"] == pytest.approx(rows[1]["passes"][0]["stages"]["build"])
    large = [{"runs": [ended(row)]} for row in rows]
    text = " ".join(page({"large": {"when": "today", "machine": MACHINE, "rows": large}}).split())
    assert "**40,000 sessions**: 200,000 clicks" in text and "1 billion clicks" in text
    assert "| fit there | yes | yes |" in text
    small = Cluster("small", machines=4, cores=10, price=2.0, memory=1e9)
    assert not forecast(rows, 1e15, small).fits
    # 64 million patterns are 4.1e11 sessions.
    assert "reach that at 2048.0 billion clicks" in text


def box(name: str, level: int, start: int, samples: int) -> str:
    return (
        f"<g><title>{name} ({samples} samples, 1.00%)</title>"
        f'<rect y="{84 + 16 * level}" fg:x="{start}" fg:w="{samples}"/></g>'
    )


def test_the_time_of_the_workers_is_told_by_the_function_of_ours_that_it_was_spent_for(
    tmp_path: Path,
) -> None:
    greedy, edges = "pick (prune_lib/sampling/task.py:30)", "edges (prune_lib/patterns.py:9)"
    stack = [
        *(("all", 0, 0, 1000), ("process 1: python job.py", 1, 0, 200)),
        ("process 2: python -m prune_lib.worker_daemon", 1, 200, 800),
        # The driver's own work is no worker's.
        *((edges, 2, 0, 200), ("worker (prune_lib/worker_daemon.py:5)", 2, 200, 800)),
        *((greedy, 3, 250, 400), ("dump (pyarrow/ipc.py:1)", 3, 700, 100), (edges, 3, 800, 200)),
        ("sort (numpy/core.py:7)", 4, 300, 300),
    ]
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:fg="http://github.com/jonhoo/inferno">'
    place = tmp_path / "flame.svg"
    place.write_text(head + "<title>no box</title>" + "".join(box(*one) for one in stack) + "</svg>")
    assert flame.seconds_by_function(flame.frames(place), rate=100) == {
        "`pick` (prune_lib/sampling/task.py)": 4.0,
        "`edges` (prune_lib/patterns.py)": 2.0,
        flame.SPARKS: 2.0,
    }
    slim = flame.without_slivers(place.read_text(), share=0.15)
    assert "no box" in slim and "sort (numpy" in slim and "dump (pyarrow" not in slim
    place.write_text(head + "</svg>")
    with pytest.raises(ValueError, match="no flame graph"):
        flame.frames(place)


def test_the_time_of_a_level_lies_between_the_two_lengths_around_it() -> None:
    def row(ratio: float, seconds: float, recall: float):
        pruning = {} if ratio == 1.0 else {"first": 48.0, "again": 3.0}
        return {
            "target": "gru4rec",
            "ratio": ratio,
            "seconds": seconds,
            "recall": recall,
            "pruning": pruning,
        }

    halves = [row(1.0, 4, 0.3), row(1.0, 16, 0.5), row(1.0, 64, 0.5)]
    assert seconds_to(halves, "gru4rec", 1.0, 0.4) == pytest.approx(8.0)
    assert seconds_to(halves, "gru4rec", 1.0, 0.2) == 4 and seconds_to(halves, "gru4rec", 1.0, 0.6) is None
    rows = [row(1.0, 10, 0.45), row(1.0, 20, 0.50), row(0.1, 4, 0.46), row(0.1, 8, 0.44)]
    lines = ["".join(line.split()) for line in training_table(rows).splitlines()]
    assert "|recommender|Recall@20|ofall'sbest|all|10%|" in lines
    assert "|gru4rec|45.0|90%|10|4+3(48)|" in lines
    assert "|gru4rec|50.0|100%|20|notreached|" in lines
    # 80 and 90 % are reached in 4 s of training and 3 of pruning, where all the data take 10.
    assert training_told(rows) == (
        "- 10%: 2 of 4 levels are reached in 40% of the training time (geometric mean); "
        "pruning included, 2 sooner."
    )
    assert training_told([rows[1], row(0.1, 4, 0.1)]) == "- 10%: 0 of 4 levels are reached."
