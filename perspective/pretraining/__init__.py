"""Pre-training without pairs: MNTP and SimCSE make a decoder an embedder (LLM2Vec), RetroMAE prepares an encoder."""
