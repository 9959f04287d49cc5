"""From a checkpoint to its graphs in each precision, and to engines."""
