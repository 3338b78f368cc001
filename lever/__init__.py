"""Choosing demonstrations for visual questions by reinforcement learning."""
