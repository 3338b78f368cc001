"""The results of a run: seeds, plots, clips and the report."""
