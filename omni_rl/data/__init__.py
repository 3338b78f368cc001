"""Records, their media, and the generated clips."""
