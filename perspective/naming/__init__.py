"""Names of clusters: keywords, an LLM's names, and the check by which the embedder chooses."""
