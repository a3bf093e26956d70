"""Sampling against the published loop; growth with the number of texts."""

from __future__ import annotations

import time

import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from perspective.benchmarks.baselines import published_sampling
from perspective.benchmarks.speed.comparison import DATASETS, Row, SpeedSettings, embed_dataset, run_alone, time_pairs
from perspective.clustering import ward
from perspective.triplets.sampling import SampleSettings, sample_triplets
from perspective.triplets.uncertainty import measure_uncertainty, scale_max_distance, select_uncertain_queries


def bench_sampling(settings: SpeedSettings) -> list[Row]:
    """Sample triplets of real texts with both, and of 10^4 to 10^6 random vectors with ours."""
    vectors = embed_dataset("mtop_domain")[:4000]
    threshold = scale_max_distance(vectors.shape[1])
    _, uncertainty = sample_triplets(vectors, SampleSettings())
    queries = select_uncertain_queries(uncertainty.entropy, 0.0, 0.2)
    expected, _ = published_sampling.sample(vectors, threshold)
    same = len(set(queries.tolist()) & set(expected.tolist())) / len(expected)
    seconds = time_pairs(
        lambda: sample_triplets(vectors, SampleSettings()),
        lambda: published_sampling.sample(vectors, threshold),
        settings.n_pairs,
    )
    scaled = StandardScaler().fit_transform(vectors.astype(float))
    joining = time_pairs(
        lambda: ward.join_by_ward(scaled, threshold),
        lambda: AgglomerativeClustering(n_clusters=None, distance_threshold=threshold).fit(scaled),
        settings.n_pairs,
    )
    rows = [
        Row(
            "sampling, 4,000 texts",
            "the published loop",
            "20x",
            *seconds,
            f"{100 * same:.1f}% of the queries are the same",
            f"Ward's exact clustering alone takes {joining[0]:.2f} and {joining[1]:.2f} s",
        )
    ]
    for n_texts in (10**4, 10**5, 10**6):
        taken, peak = run_alone(sample_mixture, n_texts)
        note = f"peak memory {peak / 2**30:.1f} GiB"
        target = "10 minutes, 8 GiB" if n_texts == 10**6 else "about linear"
        rows.append(Row(f"sampling, {n_texts:,} vectors", "its own growth", target, taken, None, None, "", note))
    rows[1] = Row(**{**vars(rows[1]), "equal": compare_sampled_clusters()})
    return rows


def sample_mixture(n_texts: int) -> float:
    """Sample triplets of a mixture of 300 clusters; return the seconds."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(300, 384)).astype(np.float32)
    vectors = centers[rng.integers(300, size=n_texts)]
    for start in range(0, n_texts, 10_000):
        vectors[start : start + 10_000] += rng.normal(size=vectors[start : start + 10_000].shape)
    start_time = time.perf_counter()
    sample_triplets(vectors, SampleSettings())
    return time.perf_counter() - start_time


def compare_sampled_clusters() -> str:
    """Cluster 10^4 real texts exactly, from a sample of half, and exactly with a little noise."""
    vectors = np.concatenate([embed_dataset(dataset) for dataset in DATASETS])[:10_000]
    exact = measure_uncertainty(vectors)
    noise = np.random.default_rng(0).normal(scale=0.05 * vectors.std(axis=0), size=vectors.shape)
    noisy = measure_uncertainty(vectors + noise)
    n_agglomerated, ward.N_AGGLOMERATED = ward.N_AGGLOMERATED, len(vectors) // 2
    sampled = measure_uncertainty(vectors)
    ward.N_AGGLOMERATED = n_agglomerated
    by_sample, by_noise = (adjusted_rand_score(exact.clusters, other.clusters) for other in (sampled, noisy))
    return f"ARI to the exact clusters: from a sample of half {by_sample:.2f}, exact with 5% noise {by_noise:.2f}"
