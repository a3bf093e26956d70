"""Descriptions for tests of the page."""

import numpy as np

from perspective.description.files import Assignment, Clustering
from perspective.description.records import Branch, Cluster, Clusters, Count, Estimate, Name, Names
from perspective.page import Description, Figure, Verdict
from perspective.page.map import TextMap

ATTACK = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">'


def describe(texts, clusters=None, n_clusters=3, names=True, after=None, **more):
    """A description of texts in clusters, on a map with a place for each cluster."""
    rng = np.random.default_rng(0)
    clusters = np.arange(len(texts)) % n_clusters if clusters is None else np.asarray(clusters)
    n_clusters = max(n_clusters, clusters.max() + 1)
    members = [np.flatnonzero(clusters == number) for number in range(n_clusters)]
    record = Clusters(
        method="kmeans",
        clusters=[
            Cluster(id=10 * number, size=len(rows), cohesion=0.8, representatives=rows[:3].tolist())
            for number, rows in enumerate(members)
        ],
        tree=[
            Branch(
                id=100_000 + number,
                children=(10 * number if number == 1 else 100_000 + number - 1, 0 if number == 1 else 10 * number),
                height=float(2**number),
                size=sum(map(len, members[: number + 1])),
            )
            for number in range(1, n_clusters)
        ],
        outlier_cosine=0.2,
    )
    outlier = np.arange(len(texts)) % 7 == 6
    ids = np.where(clusters < 0, -1, 10 * clusters)
    assignment = Assignment(ids, np.linspace(0, 1, len(texts)).astype(np.float32), outlier)
    angle = 2 * np.pi * clusters / n_clusters
    before = 10 * np.column_stack([np.cos(angle), np.sin(angle)]) + rng.standard_normal((len(texts), 2))
    origins = clusters.copy()
    origins[:2] = (origins[:2] + 1) % n_clusters
    default = Description(
        title="mine",
        clustering=Clustering(record, np.eye(n_clusters, 8, dtype=np.float32), texts, assignment),
        all_texts=texts,
        names=Names(
            perspective="intent",
            llm="smollm2",
            names=[
                Name(
                    id=10 * number,
                    name=f"name of {number}",
                    sentence=f"Texts of kind {number}.",
                    keywords=["one", "two"],
                    source="llm",
                    n_checked=20,
                    n_nearest=15,
                )
                for number in range(n_clusters)
            ],
        )
        if names is True
        else names,
        count=Count(
            n_clusters=n_clusters, criterion="views", estimates={"views": Estimate(n_clusters=n_clusters, seconds=1)}
        ),
        text_map=TextMap(
            np.arange(len(texts)), before, before[:, ::-1] if after is None else after, np.full(len(texts), 0.5)
        ),
        origins=origins,
        again=np.full(n_clusters, 0.75),
        verdict=Verdict("The LLM was not trusted.", [Figure("stability", "0.50", "0.60", "what it means")]),
        measures=None,
        run=[("clusters by", "kmeans")],
        unchanged=False,
    )
    return type(default)(**{**vars(default), **more})
