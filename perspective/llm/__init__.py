"""LLM inference for any purpose: loading, chat templates, packing, batching, labels, generation."""
