"""Benchmarks of retrieval: M3, pre-training, data that an LLM writes, gradient caching."""
