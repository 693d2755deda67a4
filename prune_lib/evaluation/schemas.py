"""Every column of an evaluation's tables: name, type, and the comment that readers of the tables see."""

from __future__ import annotations

from prune_lib.schemas import OutColumn

__all__ = ["COMMENTS", "EVALUATION"]

_KEYS = (
    OutColumn("data_set", "string", "Name of the data set", True),
    OutColumn("split", "string", "test, or validation: the newest training sessions held out", True),
    OutColumn("data_hash", "string", "Hash of the training sessions, hash of the test cases", True),
    OutColumn("method", "string", "Who chose the sessions: graph is ours; all stands for all the data", True),
    OutColumn("variant", "string", "Ablation of the method; empty for the method as it is", True),
    OutColumn("ratio", "double", "Share of the training interactions kept, in (0, 1]", True),
    OutColumn(
        "regime",
        "string",
        "steps: as many optimisation steps on every subset; epochs: as many passes; tuned: what suits a "
        "random subset of the ratio; tuning: choosing how targets are trained",
        True,
    ),
    OutColumn(
        "samples",
        "string",
        "What neural targets learn from: positions (all in one pass), prefixes (each a sample), last",
        True,
    ),
    OutColumn("target", "string", "The recommender that was trained and tested", True),
)
_MEASURE = (
    OutColumn("band", "string", "Popularity of the case's target item: cold, mid, popular, or all", True),
    OutColumn("metric", "string", "Metric at a cut-off of 20, or a property of what is recommended", True),
)

VALUES = (
    *_KEYS,
    OutColumn("seed", "bigint", "Seed of the pruning and of the training", True),
    *_MEASURE,
    OutColumn("value", "double", "The metric, in [0, 1]"),
    OutColumn("n_cases", "bigint", "Test cases that it is the mean of", True),
    OutColumn("sessions", "bigint", "Sessions trained on", True),
    OutColumn("interactions", "bigint", "Interactions trained on", True),
    OutColumn("items", "bigint", "Distinct items trained on", True),
    OutColumn("steps", "bigint", "Optimisation steps; 0 for targets that count", True),
    OutColumn("passes", "double", "Passes over the subset", True),
    OutColumn("learned", "bigint", "Targets learned from, repeated passes counted", True),
    OutColumn("learning_rate", "double", "Learning rate; 0 for targets that count", True),
    OutColumn(
        "train_seconds", "double", "Seconds of training in one thread, waits for a busy core left out", True
    ),
    OutColumn("rank_seconds", "double", "Seconds of ranking the test cases", True),
    OutColumn(
        "prune_seconds",
        "double",
        "Seconds of the pruning run: at the largest ratio, of dual at this one",
        True,
    ),
    OutColumn("cell", "string", "Name of the training: a hash of all that decides its result", True),
    OutColumn("recipe", "string", "Hash of settings and code: rows of two are never averaged", True),
    OutColumn("training", "string", "Hash of how targets are trained: rows of two are never compared"),
    OutColumn("run_id", "string", "The run that asked for it last", True),
)
SUMMARY = (
    *_KEYS,
    *_MEASURE,
    OutColumn("seeds", "bigint", "Number of seeds", True),
    OutColumn("mean", "double", "Mean over the seeds, in [0, 1]"),
    OutColumn("sd", "double", "Standard deviation over the seeds; NULL for one seed"),
    OutColumn("low", "double", "Lower bound of the mean, 95 %, by bootstrap over test sessions"),
    OutColumn("high", "double", "Upper bound of the mean"),
    OutColumn("over_random", "double", "Mean less that of random at the same ratio"),
    OutColumn("over_random_low", "double", "Its lower bound, paired on the test sessions"),
    OutColumn("over_random_high", "double", "Its upper bound"),
    OutColumn(
        "over_ours",
        "double",
        "Of an ablation: mean less that of the method as it is, at the same ratio; NULL for all else",
    ),
    OutColumn("over_ours_low", "double", "Its lower bound, paired on the test sessions"),
    OutColumn("over_ours_high", "double", "Its upper bound"),
    OutColumn("share_of_all", "double", "Mean over that of all the data"),
    OutColumn("share_low", "double", "Its lower bound"),
    OutColumn("share_high", "double", "Its upper bound"),
    OutColumn("cells", "string", "Hash of the trainings that it was computed from", True),
)
RUNS = (
    *_KEYS[:3],
    OutColumn("run_id", "string", "Hash of the settings: the same command again replaces its row", True),
    OutColumn("n_sessions", "bigint", "Training sessions", True),
    OutColumn("n_items", "bigint", "Items of the training sessions: the vocabulary", True),
    OutColumn("n_interactions", "bigint", "Training interactions", True),
    OutColumn("test_sessions", "bigint", "Test sessions of two known items or more", True),
    OutColumn("n_cases", "bigint", "Test cases: proper prefixes of test sessions", True),
    OutColumn("unknown", "bigint", "Test interactions left out: training lacks their item", True),
    OutColumn("repeated", "bigint", "Test sessions whose items are those of a training session", True),
    OutColumn("settings", "string", "All settings, JSON", True),
    OutColumn("chosen", "string", "How each neural target was trained, JSON by target", True),
    OutColumn("command", "string", "The command that made this", True),
    OutColumn("seconds", "double", "Seconds of the whole run; finished cells are not run again", True),
    OutColumn("finished_at", "timestamp", "When it ended", True),
    OutColumn("warnings", "string", "What was warned of, JSON list", True),
    OutColumn("versions", "string", "Versions of the software, JSON", True),
)

EVALUATION: dict[str, tuple[OutColumn, ...]] = {"values": VALUES, "summary": SUMMARY, "runs": RUNS}
COMMENTS = {
    "values": "One row for every training, popularity band and metric",
    "summary": "Means over seeds with intervals, beside random and beside all the data",
    "runs": "One row for every run: data set, split and settings",
}
