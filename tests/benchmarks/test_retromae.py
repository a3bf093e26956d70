"""The summary of the benchmark of RetroMAE, and its table."""

import json

import numpy as np

from perspective.benchmarks.retromae import summarize
from perspective.leaderboard import measured, pretraining_tables


def test_arms_are_compared_query_by_query(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    queries = rng.uniform(0, 80, size=200)

    def run(gain):
        facts = {"masked_loss_before": 8.0, "masked_loss_trained": 6.5} if gain else {}
        return {"before": list(queries), "after": list(queries + gain + rng.normal(size=200)), "facts": facts}

    cells = {arm: [run(gain) for _ in range(3)] for arm, gain in (("none", 0), ("mlm", 4), ("retromae", 10))}
    rows = {row["arm"]: row for row in summarize(cells)}
    assert "against_none" not in rows["none"]["after"] and "against_mlm" not in rows["mlm"]["after"]
    difference, low, high = rows["retromae"]["after"]["against_mlm"]
    assert low < 6 < high and abs(difference - 6) < 0.5 and high - low < 2
    assert rows["retromae"]["before"]["against_none"][0] == 0

    path = tmp_path / "benchmark_retromae.json"
    path.write_text(json.dumps({"arms": list(rows.values())}))
    monkeypatch.setattr(pretraining_tables, "RETROMAE", path)
    measured.load.cache_clear()
    lines = pretraining_tables.tabulate_pretraining().splitlines()
    assert lines[3].startswith("| masked tokens | 8.00 -> 6.50 | ") and lines[2].startswith("| nothing |  | ")
