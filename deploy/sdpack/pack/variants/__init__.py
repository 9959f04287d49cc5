"""Variants: from a checkpoint to its graph in each precision, and to engines."""
