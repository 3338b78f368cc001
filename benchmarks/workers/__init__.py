"""Processes that the speed benchmarks start, and what they need."""
