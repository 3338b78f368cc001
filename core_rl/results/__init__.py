"""Statistics, plots and HTML pages that every pipeline reports with."""
