"""Stage 5: make a decoder an embedder without pairs, by masked next-token prediction and SimCSE."""
