"""The summary of the benchmark of RetroMAE, and its table."""

import json

import numpy as np
from conftest import make_wordpiece_tokenizer
from transformers import BertConfig, BertForMaskedLM

from perspective.benchmarks.retrieval.retromae import measure_speed, summarize
from perspective.leaderboard import measured
from perspective.leaderboard.pages import pretraining_tables


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


def test_tokens_are_counted_and_each_pass_is_timed(tmp_path):
    tokenizer = make_wordpiece_tokenizer()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["top up my card", "rain " * 200]
    found = measure_speed(str(tmp_path), texts, n_timed=1)
    assert found["n_tokens"] == len(tokenizer(texts[0])["input_ids"]) + 96  # texts are cut to 96 tokens
    assert set(found["speed"]) == {"body", "masked_lm", "mlm", "retromae"} and min(found["speed"].values()) > 0
