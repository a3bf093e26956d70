"""Stage 4: an LLM writes training pairs for stage 6."""
