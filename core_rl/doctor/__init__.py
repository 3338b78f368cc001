"""Checks that a run is healthy: findings, the callback that asks for them, the report."""
