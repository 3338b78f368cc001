"""Rewards of a slate."""
