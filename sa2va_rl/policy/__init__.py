"""Policies that choose a prompt."""
