"""Comparison tables, the report, and the choice for one question."""
