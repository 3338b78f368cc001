"""Pushing a video-and-audio language model by GRPO to attend to people."""
