"""The denoisers of each family as modules with the same kind of inputs."""
