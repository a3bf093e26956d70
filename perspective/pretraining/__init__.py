"""Pre-training without pairs: masked next-token prediction and SimCSE, which make a decoder an embedder (LLM2Vec)."""
