"""Result files as the stages write them, for tests of the leaderboard."""

import json

import numpy as np

from perspective.artifacts import sidecar_path
from perspective.artifacts.sidecar import SCHEMA_VERSION

SCORES = {"NDCG@1": 60.0, "NDCG@10": 70.0, "F1@1": 55.0}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def write_sidecar(path, **fields):
    """The sidecar of a result, which itself need not be there."""
    made = {"schema": "embeddings", "schema_version": SCHEMA_VERSION, "sha256": "0" * 64, **fields}
    return write_json(sidecar_path(path), made)


def write_result(root, collection="docs", model="minilm", retriever="dense", add=0.0, name=None, **changes):
    """A retrieval result, `add` points above `SCORES`, with the sidecar that tells its settings."""
    scores = {metric: score + add for metric, score in SCORES.items()}
    result = {
        "collection": collection,
        "model": model,
        "retriever": retriever,
        "n_queries": 50,
        "n_documents": 400,
        "cutoffs": [1, 10],
        "scores": scores,
        "per_query": {"NDCG@10": {"q1": scores["NDCG@10"]}},
        "interval": {"NDCG@10": [scores["NDCG@10"] - 2.5, scores["NDCG@10"] + 2.25]},
        "version": 1,
        **changes,
    }
    name = name or f"{collection}_{model.rpartition('/')[2]}-{retriever}.json"
    path = write_json(root / "measures" / "retrieval" / name, result)
    write_sidecar(path, schema="retrieval", settings={"model": model, "top_k": 100})
    return path


def make_measures(acc):
    found = {metric: [score + shift for score in acc] for metric, shift in (("ACC", 0), ("NMI", 10), ("ARI", -20))}
    return {
        **found,
        **{f"{metric}_mean": float(np.mean(scores)) for metric, scores in found.items()},
        **{f"{metric}_std": float(np.std(scores)) for metric, scores in found.items()},
    }


def write_pair(root, before=(60, 62, 64), after=(65, 67, 69), dataset="banking77", embedder="minilm"):
    """Measures of a run before and after, by the names of `Layout`, with what their pairing needs."""
    write_json(root / "measures" / f"{dataset}_small_embeds_{embedder}_measures.json", make_measures(before))
    stem = f"{dataset}_small_embeds_{embedder}_m=1024_seed=100-smollm2"
    checkpoint = "perspective/2_finetune/checkpoints/run"
    write_sidecar(root / checkpoint, record={"judge": {"name": "smollm2"}})
    made = {"settings": {"embedder": embedder}, "input_paths": {"checkpoint": checkpoint}}
    made["inputs"] = {"checkpoint": "0" * 64}
    write_sidecar(root / "after_measures" / f"{stem}.npy", **made)
    return write_json(root / "after_measures" / f"{stem}_measures.json", make_measures(after))


def write_study(root, name="benchmark_quality"):
    cell = {metric: [60.0, 64.0] for metric in ("ACC", "NMI", "ARI")}
    better = {metric: [63.0, 69.0] for metric in ("ACC", "NMI", "ARI")}
    study = {
        "banking77": {"untouched": {"100": cell}, "method": {"100": better, "13": better}},
        "mtop_domain": {"untouched": {"100": cell}, "method": {"100": better}, "starling": {"100": better}},
    }
    return write_json(root / "measures" / f"{name}.json", study)
