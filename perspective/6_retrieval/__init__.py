"""Stage 3: make a retrieval set, mine negatives, train, evaluate, compare."""
