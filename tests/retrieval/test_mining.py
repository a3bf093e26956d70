import json
from dataclasses import replace

import numpy as np
import pytest
from helpers import write_jsonl

from perspective.data.pairs import Pair, load_pairs
from perspective.errors import DataError
from perspective.models.embedders import load_embedder
from perspective.retrieval import mining
from perspective.retrieval.embedding import EmbeddedTexts, embed_sides
from perspective.retrieval.mining import MineSettings, filter_pairs, mine_negatives


class Plane:
    """An embedder whose vectors are given: the angle in degrees that a text says."""

    device = "cpu"

    def similarity(self, first, second):
        import torch

        return torch.as_tensor(first) @ torch.as_tensor(second).T

    def similarity_pairwise(self, first, second):
        import torch

        return (torch.as_tensor(first) * torch.as_tensor(second)).sum(dim=1)


def embed(queries, documents):
    def point(text):
        angle = np.radians(float(text.split()[-1]))
        return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)

    return EmbeddedTexts(Plane(), {text: point(text) for text in queries}, {text: point(text) for text in documents})


def embed_all(pairs, more=()):
    return embed([pair.query for pair in pairs], [*(pair.document for pair in pairs), *more])


def test_pairs_that_the_embedder_does_not_find_again_are_dropped():
    pairs = [Pair("q 0", "d 1"), Pair("q 90", "d 30"), Pair("q 91", "d 92")]
    assert filter_pairs(pairs, embed_all(pairs), MineSettings(keep_top_k=1)) == [pairs[0], pairs[2]]
    assert filter_pairs(pairs, embed_all(pairs), MineSettings(keep_top_k=2)) == pairs
    assert filter_pairs(pairs, embed_all(pairs), MineSettings(keep_top_k=0)) == pairs
    nearer = embed_all(pairs, more=["x 0", "x 2.5", "x 91", "x 89"])
    assert filter_pairs(pairs, nearer, MineSettings(keep_top_k=2)) == [pairs[0], pairs[2]]


def test_other_documents_of_the_query_do_not_count_against_a_pair():
    pairs = [Pair("q 0", "d 1"), Pair("q 0", "d 20"), Pair("q 40", "d 41")]
    assert filter_pairs(pairs, embed_all(pairs), MineSettings(keep_top_k=1)) == pairs


def test_the_pool_is_drawn_by_the_seed():
    pairs = [Pair(f"q {i}", f"d {(7 * i) % 90}") for i in range(90)]
    embedded = embed_all(pairs)

    def keep(**settings):
        return filter_pairs(pairs, embedded, MineSettings(keep_top_k=1, **settings))

    assert keep(pool_size=9, seed=1) == keep(pool_size=9, seed=1) != keep(pool_size=9, seed=2)
    assert len(keep(pool_size=90)) < len(keep(pool_size=9)) < 90


def test_filtering_agrees_with_a_plain_ranking():
    rng = np.random.default_rng(0)
    pairs = [Pair(f"q {a:.3f}", f"d {b:.3f}") for a, b in rng.uniform(0, 180, size=(50, 2))]
    embedded = embed_all(pairs)
    expected = []
    for pair in pairs:
        scores = {text: float(vector @ embedded.queries[pair.query]) for text, vector in embedded.documents.items()}
        if sorted(scores, key=lambda text: -scores[text]).index(pair.document) < 10:
            expected.append(pair)
    assert filter_pairs(pairs, embedded, MineSettings(keep_top_k=10)) == expected


def test_negatives_are_the_nearest_that_the_margin_allows():
    pairs = [Pair("q 0", "d 10"), Pair("q 80", "d 75")]
    embedded = embed_all(pairs, more=["x 12", "x 40", "x 60"])
    first, second = mine_negatives(pairs, embedded, MineSettings(relative_margin=None, num_negatives=2))
    assert first.hard_negatives == ("x 12", "x 40")
    assert second.hard_negatives == ("x 60", "x 40")
    first, second = mine_negatives(pairs, embedded, MineSettings(num_negatives=2))
    assert first.hard_negatives == ("x 40", "x 60")  # cos 12 is not 5% below cos 10
    assert second.hard_negatives == ("x 60", "x 40")
    first, _ = mine_negatives(pairs, embedded, MineSettings(relative_margin=None, absolute_margin=0.3))
    assert first.hard_negatives == ("x 60",)
    first, _ = mine_negatives(pairs, embedded, MineSettings(relative_margin=None, range_min=1))
    assert first.hard_negatives == ("x 40",)


def test_what_a_pair_has_stays_and_its_own_texts_are_never_negatives():
    pairs = [Pair("q 0", "d 1", ("mine 3",), weight=0.5), Pair("q 0", "d 2"), Pair("q 60", "d 61", ("d 2",))]
    embedded = embed_all(pairs, more=["q 0", "x 5"])
    settings = MineSettings(relative_margin=None, num_negatives=2)
    mined = mine_negatives(pairs, embedded, settings)
    assert mined[0] == Pair("q 0", "d 1", ("mine 3", "x 5"), weight=0.5)
    assert mined[1].hard_negatives == ("x 5",)  # neither the query's other document nor the query itself
    assert mined[2].hard_negatives == ("d 2", "x 5")
    scored = [replace(pair, scores=(1.0,) * (1 + len(pair.hard_negatives))) for pair in pairs]
    assert all(
        pair.scores == () for pair in mine_negatives(scored, embedded, settings)
    )  # of fewer texts than there are


def test_the_document_of_a_dropped_pair_is_no_negative_of_its_query():
    pairs = [Pair("q 0", "d 1"), Pair("q 0", "d 8"), Pair("q 60", "d 61")]
    embedded, settings = embed_all(pairs, more=["x 20"]), MineSettings(relative_margin=None, num_negatives=2)
    kept = [pairs[0], pairs[2]]
    assert mine_negatives(kept, embedded, settings)[0].hard_negatives == ("d 8", "x 20")
    assert mine_negatives(kept, embedded, settings, dropped=pairs)[0].hard_negatives == ("x 20",)


def test_memory_is_bounded_by_the_corpus_and_negatives_stay_the_same(monkeypatch):
    pairs = [Pair(f"q {i}", f"d {(7 * i) % 90}") for i in range(90)]
    embedded = embed_all(pairs)
    whole = mine_negatives(pairs, embedded, MineSettings(num_negatives=2))
    compare, sizes = Plane.similarity, []

    def watch(self, first, second):
        scores = compare(self, first, second)
        sizes.append(scores.numel())
        return scores

    monkeypatch.setattr(Plane, "similarity", watch)
    monkeypatch.setattr(mining, "SCORES_AT_A_TIME", 1000)
    assert mine_negatives(pairs, embedded, MineSettings(num_negatives=2)) == whole
    assert max(sizes) <= 1000 and sum(sizes) == 90 * 90


def test_a_reranker_decides_the_margin():
    class Reranker:
        def predict(self, texts, **options):
            import torch

            return torch.tensor([-float(document.split()[-1]) for _, document in texts])

    pairs = [Pair("q 0", "d 30"), Pair("q 90", "d 91")]
    embedded = embed_all(pairs, more=["x 20", "x 40"])
    settings = MineSettings(relative_margin=None, absolute_margin=1.0)
    assert mine_negatives(pairs, embedded, settings, Reranker())[0].hard_negatives == ("x 40",)


def test_settings_and_data_that_do_not_fit():
    with pytest.raises(DataError, match="no room for 3 negatives"):
        MineSettings(range_min=2, range_max=4, num_negatives=3)
    with pytest.raises(DataError, match="--reranker"):
        MineSettings(reranker="x", relative_margin=None)
    with pytest.raises(DataError, match="--relative_margin -1"):
        MineSettings(relative_margin=-1.0)
    pairs = [Pair("q 0", "d 89"), Pair("q 89", "d 0")]
    with pytest.raises(DataError, match="no hard negative was found"):
        mine_negatives(pairs, embed_all(pairs), MineSettings())


def test_sides_are_embedded_with_their_prompts(embedder_folder):
    model = load_embedder(str(embedder_folder), device="cpu")
    model.prompts = {"query": "card ", "document": "bank "}
    embedded = embed_sides(model, ["rain", "rain"], ["sun", "rain"])
    assert list(embedded.queries) == ["rain"] and list(embedded.documents) == ["sun", "rain"]
    np.testing.assert_allclose(embedded.queries["rain"], model.encode("card rain", prompt=""), atol=1e-6)
    np.testing.assert_allclose(embedded.documents["rain"], model.encode("bank rain", prompt=""), atol=1e-6)


def test_stage(tmp_path, embedder_folder, sentences):
    import importlib

    texts = sentences(60)
    records = [{"query": f"{texts[i]} {i}", "document": f"{texts[i]} {texts[i + 30]}"} for i in range(30)]
    train_file = write_jsonl(tmp_path / "train.jsonl", records)
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(sentences(9, 7))])
    options = [
        "--dataset",
        "tiny",
        "--embedder",
        embedder_folder,
        "--train_file",
        train_file,
        "--output_path",
        tmp_path,
    ]
    options += ["--corpus_path", corpus, "--num_negatives", 2, "--keep_top_k", 5]
    main = importlib.import_module("perspective.6_retrieval.mine_negatives").main
    main([str(option) for option in options])
    path = tmp_path / "tiny_embedder.jsonl"
    pairs = load_pairs(path)
    facts = json.loads((tmp_path / "tiny_embedder.jsonl.meta.json").read_text())["facts"]
    assert facts["n_pairs"] == len(pairs) == 30 - facts["n_dropped"]
    assert all(pair.document not in pair.hard_negatives for pair in pairs)
    written = path.read_bytes()
    main([str(option) for option in options])
    assert path.read_bytes() == written
