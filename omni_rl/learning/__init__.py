"""Training: the warm start, supervision and learning by reward."""
