import numpy as np
import torch
from datasets import Dataset

from perspective.training.batch_samplers import DistinctBatchSampler, LengthBatchSampler


def make(texts, seed=0):
    return LengthBatchSampler(Dataset.from_dict({"sentence": texts}), batch_size=8, drop_last=False, seed=seed)


def test_every_text_once_and_like_lengths_together():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, size=203)
    texts = ["x" * length for length in lengths]
    batches = list(make(texts))
    assert sorted(sum(batches, [])) == list(range(203)) and len(batches) == len(make(texts)) == 26
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    at_random = sum(len(rows) * lengths[rows].max() for rows in np.array_split(rng.permutation(203), 26))
    assert padded < 0.8 * at_random


def test_order_follows_seed_and_epoch():
    texts = ["x" * length for length in range(1, 100)]
    assert list(make(texts)) == list(make(texts)) != list(make(texts, seed=1))
    sampler = make(texts)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_texts_of_one_length():
    assert len(list(make(["same"] * 20))) == 3


def test_an_epoch_of_queries_that_share_documents_reaches_them_all():
    """sentence-transformers ends an epoch after ten batches of 32, of which a batch holds 20 rows at most."""
    pairs = Dataset.from_dict({"query": [f"q{i}" for i in range(320)], "document": [f"d{i % 20}" for i in range(320)]})
    sampler = DistinctBatchSampler(pairs, batch_size=32, drop_last=False, generator=torch.Generator(), seed=1)
    batches = list(sampler)[: len(sampler)]
    assert all(len({row % 20 for row in batch}) == len(batch) for batch in batches)
    assert 0.95 * 320 <= len(set(sum(batches, []))) == sum(map(len, batches))
    alone = Dataset.from_dict({"query": pairs["query"]})
    assert len(DistinctBatchSampler(alone, batch_size=32, drop_last=False, generator=torch.Generator())) == 10
