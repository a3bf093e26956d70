"""Triplets (query, choice 1, choice 2): uncertainty of the embedder, sampling, conversion to training data."""
