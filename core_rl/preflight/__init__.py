"""What is looked at before a run starts: settings, packages, files, memory."""
