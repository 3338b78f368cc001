"""The comparison of methods: metrics, tables, plots, report."""
