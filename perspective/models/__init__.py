"""Embedders: short names, loading, prompts, embedding."""
