"""Training data written by an LLM: what it is asked, how its replies are read, and which of them are kept.

Nothing here reads labels or relevance judgments.
"""
