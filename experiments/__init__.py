"""The command line: composes a run from `conf/` and hands it to the task it names."""
