"""Adapt a small text embedder to a perspective with the judgments of a small LLM."""
