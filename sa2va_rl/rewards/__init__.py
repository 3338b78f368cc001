"""The learned reward network and the tables of its verdicts."""
