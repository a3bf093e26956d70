"""A decoder as an embedder: the six arms of LLM2Vec, and what instruction, pooling and LoRA's rank are worth."""
