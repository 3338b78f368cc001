"""Segmenters under a prompt, their mask cache, post-processing."""
