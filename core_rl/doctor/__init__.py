"""Checks that a run is healthy: findings, the callback that collects them, the report."""
