"""Models that answer a question from demonstrations, and the store of their answers."""
