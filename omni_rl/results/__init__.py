"""Results of a run: seeds, controls, metrics, plots and the report."""
