"""Rerankers, what a retriever learns from one, and the consistency filter of weak pairs."""
