"""Stage 1: sample triplets and let an LLM judge them."""
