"""Entry points: plain functions that take settings and return numbers."""
