"""Mixed precision: a scheme for each layer of a part."""
