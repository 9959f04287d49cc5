"""The predicted cost of a build: downloads, disk, images and time."""
