"""How long a mix takes for one image, and the limit on it."""
