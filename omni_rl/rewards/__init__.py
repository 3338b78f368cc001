"""Rewards of completions, and scores of held-out completions."""
