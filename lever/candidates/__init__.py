"""Candidate slates: beams, their files, stored RL data."""
