"""The field's protocols against plain pandas, on a generated log in Diginetica's form."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from prune_lib.delta import table_version
from prune_lib.errors import UserError
from tests.spark.ingesting import ingest

DAY = 86_400
Sessions = dict[str, list[str]]


def log(seed: int) -> pd.DataFrame:
    """Item views of forty days, as train-item-views.csv has them: not in order within a session."""
    draw = random.Random(seed)
    rows = []
    for session in range(260):
        day = pd.Timestamp("2016-01-01") + pd.Timedelta(days=draw.randrange(40))
        for _ in range(draw.choice([1, 1, 2, 3, 4, 7])):
            item = min(int(draw.paretovariate(0.7)), 90)
            # Some new items come in the last week only.
            item += 1000 if day >= pd.Timestamp("2016-02-03") and draw.random() < 0.3 else 0
            rows.append((session, "NA", item, draw.randrange(1_200_000), day.strftime("%Y-%m-%d")))
    names = ["session_id", "user_id", "item_id", "timeframe", "eventdate"]
    frame = pd.DataFrame(rows, columns=names)
    # A click that stands there twice is one, which neither script sees to.
    return frame.drop_duplicates(["session_id", "item_id", "timeframe"])


def prepared(log: pd.DataFrame, srgnn: bool, days: int, collapse: bool = False) -> tuple[Sessions, Sessions]:
    """The steps of SR-GNN's and session-rec's scripts, in pandas."""
    clicks = log.copy()
    date = pd.to_datetime(clicks["eventdate"]).astype("int64") // 10**9
    clicks["time"] = date + clicks["timeframe"] / 1000
    clicks = clicks.sort_values(["session_id", "timeframe"], kind="stable")
    if collapse:
        before = clicks.groupby("session_id")["item_id"].shift()
        clicks = clicks[clicks["item_id"] != before]
    ended = date.groupby(log["session_id"]).max()

    def long_enough(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame.groupby("session_id")["item_id"].transform("size") >= 2]

    clicks = long_enough(clicks)
    clicks = clicks[clicks.groupby("item_id")["item_id"].transform("size") >= 5]
    clicks = long_enough(clicks)
    if not srgnn:
        ended = clicks.groupby("session_id")["time"].max()
    end = clicks["session_id"].map(ended)
    edge = end.max() - days * DAY
    train = clicks[end < edge]
    test = clicks[end > edge] if srgnn else clicks[end >= edge]
    test = long_enough(test[test["item_id"].isin(set(train["item_id"]))])

    def sequences(frame: pd.DataFrame) -> Sessions:
        return {str(name): [str(i) for i in of] for name, of in frame.groupby("session_id")["item_id"]}

    return sequences(train), sequences(test)


def table(spark: SparkSession, place: str) -> Sessions:
    rows = spark.read.format("delta").load(place).collect()
    return {row["session_id"]: list(row["items"]) for row in rows}


@pytest.mark.parametrize(
    ("protocol", "days", "collapse"),
    [("srgnn", None, False), ("session-rec", None, False), ("srgnn", 10, True)],
)
def test_a_protocol_gives_what_plain_pandas_gives(
    spark: SparkSession, tmp_path: Path, protocol: str, days: int | None, collapse: bool
) -> None:
    frame = log(3)
    frame.to_csv(tmp_path / "train-item-views.csv", sep=";", index=False)
    more = {"protocol": protocol, "test_days": days, "collapse_repeats": collapse}
    run = ingest(spark, tmp_path / "train-item-views.csv", tmp_path / "out", **more).run
    train, test = prepared(frame, protocol == "srgnn", days or 7, collapse)
    assert table(spark, f"{tmp_path / 'out'}") == train and len(train) > 80
    assert table(spark, f"{tmp_path / 'out'}_test") == test and len(test) > 10
    assert run["rows_read"] == len(frame) == run["rows_clean"] + run["rows_dropped"]
    assert run["rows_clean"] == sum(map(len, [*train.values(), *test.values()]))
    expected = {"short_session", "rare_item", "unseen_item"}
    expected |= {"between_parts"} if protocol == "srgnn" else set()
    expected |= {"repeated_click"} if collapse else set()
    assert set(run["by_rule"]) == expected
    assert (run["test_sessions"], run["test_clicks"]) == (len(test), sum(map(len, test.values())))


def test_the_raw_sample_of_diginetica_by_srgnn(
    spark: SparkSession, shared_data: Path, tmp_path: Path
) -> None:
    place = shared_data / "raw" / "diginetica_sample_train-item-views.csv"
    frame = pd.read_csv(place, sep=";", dtype={"user_id": str}, keep_default_na=False)
    assert not frame.duplicated().any()
    ingest(spark, place, tmp_path / "out", protocol="srgnn", form="diginetica")
    train, test = prepared(frame, True, 7)
    # Two sessions go over midnight; clicks of one millisecond are in the file's order in both.
    assert table(spark, f"{tmp_path / 'out'}") == train and len(train) > 100
    assert table(spark, f"{tmp_path / 'out'}_test") == test


def test_steps_that_leave_nothing_touch_no_table(spark: SparkSession, tmp_path: Path) -> None:
    # Half a day of five sessions of the same two items.
    lines = [f"s{k},{item},{1_700_000_000 + 10_000 * k + item}" for k in range(5) for item in (1, 2)]
    (tmp_path / "log.csv").write_text("\n".join(["session_id,item_id,ts", *lines]))
    ingest(spark, tmp_path / "log.csv", tmp_path / "out")
    before = table_version(spark, str(tmp_path / "out"))
    for steps, said in (
        ({"protocol": "srgnn"}, "end within 0.46 days, and those of the last 7 days .--test-days 7. are"),
        ({"protocol": "session-rec", "test_days": 0.5}, "--test-days 0.5"),
        ({"protocol": "srgnn", "min_support": 6}, "--min-length 2 .0 clicks., --min-support 6 .10 clicks."),
        ({"min_support": 6}, "No session is left .*--min-support 6 .10 clicks.. Give smaller values"),
        ({"min_length": 3}, "No session is left .*--min-length 3 .10 clicks.. Give smaller values"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            ingest(spark, tmp_path / "log.csv", tmp_path / "out", **steps)
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert table_version(spark, str(tmp_path / "out")) == before
    assert not (tmp_path / "out_test").exists()
