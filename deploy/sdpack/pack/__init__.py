"""The heart: which mixes there are, which fit, and which of them is chosen."""
