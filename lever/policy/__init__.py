"""Selectors of demonstrations, and the policy over ordered sets of them."""
