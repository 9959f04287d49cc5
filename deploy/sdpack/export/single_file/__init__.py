"""Models in a single file, in the layout of the programs that made them, as diffusers folders."""
