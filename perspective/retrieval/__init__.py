"""Retrieval: pairs and collections, search, metrics, training."""
