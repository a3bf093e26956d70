"""BERTopic with its defaults on vectors that are there: UMAP, HDBSCAN, class-based TF-IDF; UMAP again as the map.

It is no requirement, since it brings numba: `pip install --no-deps --target FOLDER bertopic umap-learn hdbscan
pynndescent numba llvmlite plotly narwhals`, then put FOLDER on PYTHONPATH. Without it the comparison is left out.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

PACKAGES = ("bertopic", "umap", "hdbscan")


def is_installed() -> bool:
    """Tell whether BERTopic can be compared with; otherwise say so in one line."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        logger.warning("not compared with BERTopic: %s cannot be imported (see %s)", ", ".join(missing), __name__)
    return not missing


def find_topics(texts: Sequence[str], vectors: np.ndarray) -> Any:  # noqa: ANN401  a BERTopic model
    """Fit its topics and keywords; return the model."""
    from bertopic import BERTopic

    model = BERTopic()
    model.fit_transform(list(texts), vectors)
    return model


def draw_map(vectors: np.ndarray) -> np.ndarray:
    """Return the places of `BERTopic.visualize_documents`, `(n_texts, 2)`."""
    from umap import UMAP

    return np.asarray(UMAP(n_neighbors=10, n_components=2, min_dist=0.0, metric="cosine").fit_transform(vectors))


def assign(model: Any, vectors: np.ndarray) -> np.ndarray:  # noqa: ANN401
    """Return the topics of new texts."""
    topics, _ = model.transform([""] * len(vectors), vectors)
    return np.asarray(topics)
