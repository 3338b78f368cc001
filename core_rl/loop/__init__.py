"""The training loop: one Lightning module, its batches and its optimiser."""
