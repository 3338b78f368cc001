"""Clients of servers: retried requests, rollouts drawn by another engine, vLLM."""
