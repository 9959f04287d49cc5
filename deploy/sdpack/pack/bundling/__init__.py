"""Bundling: from the winner of a race to the files of a bundle."""
