"""Stage 6: create a retrieval set, mine negatives, train, evaluate, compare."""
