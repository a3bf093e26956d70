"""Clusterings of vectors: k-means and its starting points, distances."""
