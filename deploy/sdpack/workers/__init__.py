"""Worker processes: independent work on all cores."""
