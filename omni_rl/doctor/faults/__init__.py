"""Faults that are planted on purpose, to show that the doctor finds them."""
