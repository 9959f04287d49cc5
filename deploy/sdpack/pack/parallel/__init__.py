"""Steps of a build as jobs for worker processes."""
