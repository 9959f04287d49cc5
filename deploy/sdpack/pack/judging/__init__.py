"""Checks of a catalog's judge on real and on drawn images."""
