"""Mixed precision: which layer of a part is stored how."""
