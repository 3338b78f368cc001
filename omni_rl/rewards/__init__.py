"""Rewards of a completion, and the scores of an evaluation."""
