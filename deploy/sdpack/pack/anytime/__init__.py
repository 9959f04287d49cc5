"""Builds with a time limit: the best bundle that can be found in the time there is."""
