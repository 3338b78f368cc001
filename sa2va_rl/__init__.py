"""Choosing segmentation prompts by reinforcement learning against a learned reward."""
