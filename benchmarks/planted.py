"""What becomes of the demo data's planted truths, and how near weighted counts of items come.

    .venv/bin/spark-submit benchmarks/planted.py

Prunes the demo data by the defaults, with and without a floor of 1, and prints two Markdown tables. Gone: the
share of the planted sessions that are pruned. Cold items with a clean one: of the cold items that some
session holds which is neither bot nor noise, the share that keep such a session. Weights: relative errors of
`sum(prune_weight)` as an estimate of the sessions that hold an item, over items in 50 sessions or more;
beside it, with equal weights.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.pipeline import run_prune  # noqa: E402
from prune_lib.session import get_spark  # noqa: E402
from prune_lib.settings import PruneSettings, SuspectsSettings  # noqa: E402

_COMMON = 50


def main() -> None:
    """Prune, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ratios", default="0.1,0.3", help="shares of the clicks")
    parser.add_argument("--floors", default="0,1", help="sessions that every item keeps")
    parser.add_argument("--hardest", type=float, default=SuspectsSettings().hardest, help="of noise")
    parser.add_argument("--workspace", help="folder to keep; default: a temporary one")
    asked = parser.parse_args()
    logging.getLogger("prune_lib").setLevel(logging.WARNING)
    spark = get_spark("planted")
    with tempfile.TemporaryDirectory() as scratch:
        workspace = asked.workspace or scratch
        truths, weights = [], []
        for floor in map(int, asked.floors.split(",")):
            for ratio in map(float, asked.ratios.split(",")):
                output = f"{workspace}/kept-{ratio:g}-{floor}-{asked.hardest:g}"
                settings = PruneSettings(
                    ratio=ratio,
                    floor=floor,
                    workspace=workspace,
                    output=output,
                    suspects=SuspectsSettings(hardest=asked.hardest),
                )
                run_prune(settings, spark)
                sessions, decisions, items, kept = (
                    spark.read.format("delta").load(place).toPandas()
                    for place in (
                        f"{workspace}/sessions",
                        f"{output}_decisions",
                        f"{output}_items",
                        output,
                    )
                )
                case = {"kept": f"{100 * ratio:g} %", "floor": floor}
                truths.append({**case, **_truths(sessions, decisions, items)})
                weights.append({**case, **_weights(items, kept, len(sessions))})
    print(pd.DataFrame(truths).to_markdown(index=False, floatfmt=".1f"), end="\n\n")
    print(pd.DataFrame(weights).to_markdown(index=False, floatfmt=".1f"))
    spark.stop()


def _truths(sessions: pd.DataFrame, decisions: pd.DataFrame, items: pd.DataFrame) -> dict[str, float]:
    rows = sessions.merge(decisions[["session_id", "kept", "interactions"]], on="session_id")
    kept = rows[rows["kept"]]
    gone = 100 * (1 - rows.groupby("planted")["kept"].mean())
    copies = kept["items"].map(tuple).duplicated().sum()
    cold = set(items.loc[items["band"] == "cold", "item"])
    clean = rows[~rows["planted"].isin(["bot", "noise"])].explode("items")
    held = clean[clean["items"].isin(cold)].groupby("items")["kept"].any()
    return {
        "copies kept beside their twin": float(copies),
        **{f"{kind} gone %": gone[kind] for kind in ("bot", "noise", "near_duplicate", "organic")},
        "cold items with a clean one %": 100 * float(held.mean()),
        "bots' share of kept clicks %": 100
        * float(kept.loc[kept["planted"] == "bot", "interactions"].sum() / kept["interactions"].sum()),
    }


def _weights(items: pd.DataFrame, kept: pd.DataFrame, n_sessions: int) -> dict[str, float]:
    common = items[items["sessions_before"] >= _COMMON].set_index("item")["sessions_before"]
    holds = kept.assign(item=kept["items"].map(lambda seq: sorted(set(seq)))).explode("item")
    equal = n_sessions / len(kept)
    out: dict[str, float] = {"items": float(len(common))}
    for name, weight in (("prune_weight", holds["prune_weight"]), ("equal weights", equal)):
        summed = holds.assign(weight=weight).groupby("item")["weight"].sum()
        error = 100 * (summed.reindex(common.index).fillna(0) / common - 1)
        out |= {
            f"{name}: mean error %": float(error.mean()),
            f"{name}: root mean square %": float(np.sqrt((error**2).mean())),
        }
    return out


if __name__ == "__main__":
    main()
