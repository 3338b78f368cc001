"""Checks of a causal language model: parity of drawing and scoring, prompts, sampling."""
