"""Texts and where they come from: corpora, pairs, collections, the sets that can be made of what is installed."""
