"""`prune` on frames, and what it gives: the examples of the docstrings, and frames that stay a run's own."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import prune_lib.api
import prune_lib.pruned
from prune_lib import Pruned, PruneSettings, UserError, evaluate, explain, prune
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.model_store import find_bundle
from prune_lib.session import configured
from prune_lib.written import spark_frame, write_down
from tests.spark.sessions import random_sessions

ITEMS = random_sessions(31, n=250, items=90)
TABLE = pd.DataFrame({"session_id": [f"s{k:04d}" for k in range(250)], "items": ITEMS, "day": range(250)})

# How good the experts are is no question here.
TRAINING = {"epochs": 1, "dim": 8, "gate_epochs": 2}


def run_examples(module: Any, name: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run a docstring's examples; what they named."""
    (example,) = (t for t in doctest.DocTestFinder(recurse=False).find(getattr(module, name), name, module))
    example.globs |= names
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    found = runner.run(example, out=said.append, clear_globs=False)
    assert found.failed == 0 and found.attempted > 3, "".join(said)
    return example.globs


@pytest.fixture(scope="module")
def run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The docstring of `prune`, run as a user would, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("user"))
        # What is relative to the folder the JVM does not see: it was started elsewhere.
        here = str(Path.cwd() / "my workspace")

        def by_default(sessions: Any, ratio: float, **more: Any) -> Pruned:
            return prune(sessions, ratio, workspace=here, training=TRAINING, **more)

        names = run_examples(prune_lib.api, "prune", {"sessions": TABLE, "prune": by_default})
        yield SimpleNamespace(pruned=names["pruned"], prune=by_default, workspace=Path(here))


def rows(frame: DataFrame) -> pd.DataFrame:
    return frame.drop("prune_run_id").orderBy("prune_rank").toPandas()


def test_the_examples_of_pruned(run: Any) -> None:
    run_examples(prune_lib.pruned, "Pruned", {"output": run.pruned.output, "Pruned": Pruned})


@pytest.fixture(scope="module")
def found(run: Any) -> Any:
    """The docstring of `evaluate`, with a floor beside it, and a ratio that is too small for that."""

    def by_default(sessions: Any, ratios: list[float], **more: Any) -> Any:
        own = {"workspace": str(run.workspace), "order_column": "day", "training": TRAINING}
        return evaluate(sessions, ratios=[0.03, *ratios], ablations=["floors"], **own, **more)

    return run_examples(prune_lib.api, "evaluate", {"sessions": TABLE, "evaluate": by_default})["found"]


def test_the_examples_of_evaluate(run: Any, found: Any) -> None:
    assert set(found.summary["target"]) == {"markov"} and str(found.document) in str(found)
    # What training and scoring took is noted for the runs that find both done: test_evaluation.py.
    (noted,) = run.workspace.glob("evaluate/*/test-*/workspace-*/seconds.json")
    assert sorted(key.partition(" ")[2] for key in json.loads(noted.read_text())) == ["", "nll"]


def test_a_floor_that_a_smaller_ratio_does_not_fit_is_left_out_there(found: Any) -> None:
    with_floor = found.summary[found.summary["variant"] == "floor=1"]
    assert set(with_floor["ratio"]) == {0.2}
    (told,) = [text for text in found.found["warnings"] if "floor=1" in text]
    assert "left out at the ratio 0.03: its floor takes" in told


@pytest.mark.parametrize(
    ("sessions", "given", "said"),
    [
        ([[1, 2]], {}, "`sessions` must be a DataFrame .* or EvaluateSettings; got list"),
        ("clicks", {"test": 3}, "`test` must be a DataFrame .*; got int"),
        ("clicks", {"input": "x"}, "both name what is pruned"),
        (EvaluateSettings(), {"test": "x"}, "not both"),
        (TABLE, {"ratio": 0.1}, "`ratio` is not a setting. Did you mean ratios"),
        (TABLE, {"dry_run": True}, "written down first"),
        (TABLE, {"workspace": "main.shop"}, "is no folder"),
        (TABLE[["session_id", "day"]], {}, "^The DataFrame has no column .* item"),
    ],
)
def test_mistakes_of_an_evaluation(
    spark: SparkSession, tmp_path: Path, sessions: Any, given: dict[str, Any], said: str
) -> None:
    if not isinstance(sessions, EvaluateSettings):
        given = {"workspace": str(tmp_path), **given}
    with pytest.raises(UserError, match=said):
        evaluate(sessions, **given)
    assert not list(tmp_path.iterdir())


def test_what_is_said_of_it(run: Any) -> None:
    pruned = run.pruned
    assert pruned.run["method"] == "graph" and pruned.run["settings"]["ratio"] == 0.2
    assert str(pruned) == str(pruned.summary())
    assert "nll by experts" in str(pruned)
    assert "nll by experts" not in str(Pruned.open(pruned.output).summary()), "which no table holds"
    assert len(repr(pruned).splitlines()) == 2
    html = pruned._repr_html_()
    assert html.startswith("<table") and f"{pruned.run['sessions_after']:,}" in html
    assert pruned.decisions.count() == 250 and pruned.items.count() == pruned.run["items_before"]
    assert pruned.runs.count() == 1


def test_an_example_of_every_smaller_budget(run: Any) -> None:
    pruned = run.pruned
    budget = int(0.1 * pruned.run["interactions_before"])
    kept = rows(pruned.sessions)
    clicks = kept["items"].map(len).cumsum()
    assert rows(pruned.at(0.1))["session_id"].tolist() == kept["session_id"][clicks <= budget].tolist()
    assert pruned.at(0.2).count() == len(kept)
    curve = pruned.curve()
    under = curve[curve["ratio"] <= 0.1].iloc[-1]
    assert (
        under["interactions"] <= budget
        and kept["items"].map(len)[: int(under["rank"])].sum() == (under["interactions"])
    )
    assert pruned.at(rank=int(under["rank"])).count() == under["sessions"]
    assert curve["ratio"].iloc[-1] == clicks.iloc[-1] / pruned.run["interactions_before"]
    with pytest.raises(UserError, match=r"in \(0, 0.2\], what this run kept; got 0.3"):
        pruned.at(0.3)
    with pytest.raises(UserError, match="what this run kept; got 1,000,000"):
        pruned.at(rank=1_000_000)
    with pytest.raises(UserError, match="needs a ratio or a rank"):
        pruned.at()
    with pytest.raises(UserError, match="keeps nothing"):
        pruned.at(0.001)


def test_a_later_run_of_the_same_frame_leaves_the_first_as_it_was(spark: SparkSession, run: Any) -> None:
    first, before = run.pruned, rows(run.pruned.sessions)
    inputs = run.workspace / "inputs"
    same = spark_frame(spark, TABLE.sample(frac=1.0, random_state=1)).repartition(5)
    random = run.prune(same, 0.1, method="random")
    assert len(list(inputs.iterdir())) == 1, "it is the same table"
    asked = PruneSettings(ratio=0.1, workspace=str(run.workspace), training=TRAINING)
    assert find_bundle(asked, random.run["input"]) is not None, "whose experts are known"
    assert rows(random.sessions)["prune_reason"].unique().tolist() == ["METHOD"]
    pd.testing.assert_frame_equal(rows(first.sessions), before)
    dropped = first.decisions.filter("NOT kept AND difficulty IS NOT NULL").first()
    assert dropped is not None and "experts" in str(first.explain(dropped["session_id"]))
    assert "experts" not in str(random.explain(dropped["session_id"]))
    assert first.explain(item=str(ITEMS[0][0])).item is not None
    assert Pruned.open(first.output).run["run_id"] == random.run["run_id"]
    assert Pruned.open(first.output, run_id=first.run["run_id"]).versions == first.versions

    page = first.report(map_points=0)
    own = f"{Path(first.output).name}_report_{first.run['run_id']}.html"
    assert page.path.name == own, "the name without is the last run's"
    assert page.run_id == first.run["run_id"], "the report of the first run, too"
    text = page.path.read_text(encoding="utf-8")
    assert f"kept {first.run['sessions_after']:,} of" in text and 'id="difficulty"' in text

    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        spark.sql(f"VACUUM delta.`{first.output}` RETAIN 0 HOURS")
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    with pytest.raises(UserError, match=r"has lost its version .* \(VACUUM\)"):
        _ = first.sessions
    assert random.sessions.count() > 0


def test_times_of_a_frame_are_read_in_its_sessions_zone(spark: SparkSession, tmp_path: Path) -> None:
    """Spark reads times from text, and computes with them, when the frame is written down."""
    clicks = ["session_id,item,ts", "a,1,2026-07-01 10:00:00", "a,2,2026-07-01 10:01:00"]
    clicks += ["b,2,2026-07-02 10:00:00", "b,1,2026-07-02 10:01:00"]
    (tmp_path / "log.csv").write_text("\n".join(clicks))
    with configured(spark, {"spark.sql.session.timeZone": "Asia/Tokyo"}):
        schema = "session_id string, item bigint, ts timestamp"
        frame = spark.read.csv(str(tmp_path / "log.csv"), header=True, schema=schema)
        shown = frame.agg(F.unix_seconds(F.min("ts"))).first()[0]
        pruned = prune(frame, 1.0, method="random", workspace=str(tmp_path / "work"))
        assert pruned.sessions.agg(F.unix_seconds(F.min("ts"))).first()[0] == shown
    assert shown == int(pd.Timestamp("2026-07-01T10:00:00+09:00").timestamp())


def test_a_name_holds_versions(spark: SparkSession, tmp_path: Path) -> None:
    times = pd.Timestamp("2026-01-01") + pd.to_timedelta(range(4), unit="us")
    table = pd.DataFrame(
        {"session_id": list("aabb"), "item": [1, 2, 1, 3], "ts": times, "note": [None, "x", "", "ü"]}
    )
    frame = spark_frame(spark, table.set_index("session_id"))
    assert frame.columns[0] == "session_id", "the index has a name"
    place = write_down(spark, frame, str(tmp_path), "clicks")
    assert place == f"{tmp_path}/inputs/clicks"

    def versions() -> int:
        return spark.sql(f"DESCRIBE HISTORY delta.`{place}`").count()

    write_down(spark, frame.repartition(3), str(tmp_path), "clicks")
    assert versions() == 1
    # A microsecond, null for an empty text: each is another content.
    changed = frame.withColumn("ts", F.col("ts") + F.expr("INTERVAL 1 MICROSECOND"))
    swapped = frame.withColumn("note", F.nullif("note", F.lit("")))
    for k, other in enumerate((changed, swapped, frame.withColumn("item", F.col("item").cast("int"))), 2):
        write_down(spark, other, str(tmp_path), "clicks")
        assert versions() == k
    assert len({write_down(spark, f, str(tmp_path), None) for f in (frame, changed, swapped)}) == 3
    frame.write.format("delta").save(f"{tmp_path}/inputs/mine")
    with pytest.raises(UserError, match="prune_lib.prune did not write it"):
        write_down(spark, frame, str(tmp_path), "mine")


@pytest.mark.parametrize(
    ("sessions", "given", "said"),
    [
        (
            TABLE,
            {"ratio": 7, "methd": "x"},
            r"2 mistakes.*\n\(1\) `methd` is not a setting. Did you mean method\?",
        ),
        (TABLE, {}, "`ratio` is missing"),
        (TABLE, {"ratio": 0.1, "name": "a/b"}, "`name` must be made of"),
        (TABLE, {"ratio": 0.1, "version": 3}, "a DataFrame has no versions"),
        (TABLE, {"ratio": 0.1, "input": "x"}, "both name what is pruned"),
        (
            TABLE[["session_id", "day"]],
            {"ratio": 0.1},
            r"^The DataFrame has no column .* item.*by `item_column`",
        ),
        (TABLE.assign(prune_rank=1), {"ratio": 0.1}, "prune_rank already"),
        (TABLE.head(0), {"ratio": 0.1}, "has no rows"),
        (TABLE.assign(day=[object()] * 250), {"ratio": 0.1}, "cannot be made one of Spark's"),
        (
            TABLE,
            {"ratio": 0.1, "since": "3d", "dry_run": True},
            "times of the DataFrame|the DataFrame has no",
        ),
        (TABLE, {"ratio": 0.1, "floor_by": ["nothing:2"], "dry_run": True}, "nothing"),
        (TABLE, {"ratio": 0.1, "output": "/proc/kept", "dry_run": True}, "/proc/kept.* cannot be written"),
        (TABLE, {"ratio": 0.1, "output": "/proc/kept"}, "/proc/kept.* cannot be written"),
        (TABLE, {"ratio": 0.1, "experts": "/nowhere/experts"}, "is not a bundle of experts"),
        ([[1, 2]], {"ratio": 0.1}, "`sessions` must be a DataFrame .*; got list"),
        ("nowhere/at_all", {"ratio": 0.1}, "There is no table at nowhere/at_all"),
        (PruneSettings(ratio=0.1), {"ratio": 0.2}, "not both"),
    ],
)
def test_mistakes(
    spark: SparkSession, tmp_path: Path, sessions: Any, given: dict[str, Any], said: str
) -> None:
    more = {} if isinstance(sessions, PruneSettings) else {"workspace": str(tmp_path)}
    with pytest.raises(UserError, match=said) as caught:
        prune(sessions, **given, **more)
    assert caught.value.exit_code == 2 and "--" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_frame_writes_nothing(spark: SparkSession, tmp_path: Path) -> None:
    planned = prune(TABLE, ratio=0.1, workspace=str(tmp_path), dry_run=True)
    assert "a row a session" in str(planned) and "trained first" in str(planned)
    assert "input the DataFrame (a DataFrame)" in str(planned) and "\0" not in str(planned)
    assert "dry run" in repr(planned) and planned._repr_html_() == ""
    with pytest.raises(UserError, match="leave out `dry_run`"):
        _ = planned.sessions
    assert not list(tmp_path.iterdir())


def test_tables_that_no_run_wrote(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no Delta table"):
        Pruned.open(tmp_path / "nothing")
    for look in (Pruned.open, lambda place: explain("1", output=place, spark=spark)):
        with pytest.raises(UserError, match="no place that this Spark can read"):
            look("s3a://bucket/kept")
    spark.range(3).write.format("delta").save(str(tmp_path / "other"))
    with pytest.raises(UserError, match="does not know a pruning run"):
        Pruned.open(tmp_path / "other")
