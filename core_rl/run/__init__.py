"""One run: its Trainer, callbacks, folder, stages and seeds side by side."""
