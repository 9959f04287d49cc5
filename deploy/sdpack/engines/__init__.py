"""Engines: run graphs with the supported runtimes, whose packages are imported on first use."""
