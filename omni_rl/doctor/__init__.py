"""Checks of media: what should arrive in the model, and what did."""
