"""Triplets (query, choice 1, choice 2): where the embedder is uncertain, how they are drawn and converted."""
