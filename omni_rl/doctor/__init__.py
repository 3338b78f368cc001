"""Checks that the media of a record reach the model unchanged and have an effect."""
