"""Asking an LLM, for whatever purpose: loading, chat templates, packing, batching, labels, generation."""
